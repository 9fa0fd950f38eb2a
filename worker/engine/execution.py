"""Resident or streamed: chosen from free memory for each model that a run loads, and changed when memory runs out.

A resident model is faster to start with and can generate; a streamed one needs the room of two layers. The choice is
the recipe's where it names one.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import psutil
import torch

from app.core.safetensors_file import read_checkpoint
from worker.engine.assembly import WRITTEN
from worker.engine.context import StageContext
from worker.engine.decoder import Decoder, load_decoder
from worker.engine.device import autocast, compute_dtype, is_out_of_memory, stored_dtype
from worker.engine.errors import EngineError
from worker.engine.export.loading import load_written
from worker.engine.hidden_states import LayeredModel
from worker.engine.recipe import Execution
from worker.engine.streamed import load_streamed
from worker.engine.weights import stored_parameters

OUTPUT = "execution.json"
DENSE = "decoder"
"""The name that the loaded dense model has in a context's memo."""

WORKING_ROOM = 512 << 20
"""What a resident run needs beside the weights: states of one batch, logits, a block in training."""

T = TypeVar("T")


@dataclass(frozen=True)
class Choice:
    """How a model runs, and why."""

    kind: Execution
    reason: str


def free_bytes(device: str) -> int:
    """Return the memory that a model may take: the device's, or on CPU what the system and the container leave."""
    if device == "cuda":
        return int(torch.cuda.mem_get_info()[0])
    return min(int(psutil.virtual_memory().available), left_in_container(Path("/sys/fs/cgroup")))


def left_in_container(group: Path) -> int:
    """Return what a control group (version 2, Linux) still allows; without a limit, or without one, more than there is.

    Its page cache gives way when memory is short and does not count.
    """
    with suppress(OSError, ValueError):
        limit = int((group / "memory.max").read_text(encoding="ascii"))
        used = dict(line.split() for line in (group / "memory.stat").read_text(encoding="ascii").splitlines())
        return max(0, limit - int(used["anon"]) - int(used.get("kernel", 0)))
    return 1 << 62


def choose(wanted: Execution, path: Path, device: str) -> Choice:
    """Choose how the model in `path` runs on `device`.

    Resident needs all parameters in the dtype computed in, and `WORKING_ROOM`.
    """
    if wanted != "auto":
        return Choice(wanted, "the recipe asks for it")
    dtype = compute_dtype(device, stored_dtype(path))
    needed = stored_parameters(read_checkpoint(path)) * dtype.itemsize + WORKING_ROOM
    free = free_bytes(device)
    sizes = (
        f"{_size(needed)} for the parameters in {str(dtype).removeprefix('torch.')} and to work in, "
        f"{_size(free)} free on {device}"
    )
    return Choice("resident" if needed <= free else "streamed", sizes)


def shared_model(context: StageContext, *, beside: bool = False) -> LayeredModel:
    """Return the dense model of a run, opened once per process; `execution.json` says how it runs.

    Args:
        context: of the stage.
        beside: it is wanted beside the pruned one, which is no reason to call a run streamed.

    Raises:
        EngineError: `cannot_stream` where the recipe asks for what this model's files do not allow.
    """
    if DENSE not in context.memo:
        choice = choose(context.recipe.execution, context.model, context.device)
        context.memo[DENSE], choice = _opened(context, choice)
        if not beside:
            _note(context, choice)
    model: LayeredModel = context.memo[DENSE]
    return model


def weightless_model(context: StageContext) -> LayeredModel:
    """Return the dense model for what its layers look like and are given: read layer by layer where its files allow it,
    so that a process that only trains a block holds no second copy of the weights."""
    try:
        return _streamed(context, context.model)
    except EngineError as error:
        if error.code != "cannot_stream":
            raise
        return shared_model(context, beside=True)


def _opened(context: StageContext, choice: Choice) -> tuple[LayeredModel, Choice]:
    wanted = context.recipe.execution
    if choice.kind == "streamed":
        try:
            return _streamed(context, context.model), choice
        except EngineError as error:
            if error.code != "cannot_stream" or wanted == "streamed":
                raise
            choice = Choice("resident", f"{choice.reason}, but {error.detail}")
    trust = context.recipe.trust_remote_code
    try:
        return load_decoder(context.model, context.device, trust_remote_code=trust), choice
    except Exception as error:
        if not is_out_of_memory(error) or wanted == "resident":
            raise
    _forget()
    return _streamed(context, context.model), Choice("streamed", "memory ran out while the model was loaded")


def _streamed(context: StageContext, path: Path) -> LayeredModel:
    trust = context.recipe.trust_remote_code
    return load_streamed(path, context.device, context.temporary, trust_remote_code=trust)


def _note(context: StageContext, choice: Choice) -> None:
    context.write_json(OUTPUT, {"kind": choice.kind, "reason": choice.reason})
    context.emit.log(f"the model runs {choice.kind}: {choice.reason}")


def resident_model(context: StageContext, what: str) -> Decoder:
    """Return the dense model of a run where it is whole in memory; `what` needs that, and is named where it is not.

    Raises:
        EngineError: `needs_resident`.
    """
    model = shared_model(context)
    if not isinstance(model, Decoder):
        raise EngineError("needs_resident", f"{what} needs the whole model in memory, and this run streams its layers")
    return model


def shared_written(context: StageContext) -> LayeredModel:
    """Return the written checkpoint of a run, opened once per process; `assemble` makes it be opened anew.

    The dense model makes room where both do not fit; it is opened again when it is asked for.
    """
    if WRITTEN not in context.memo:
        path = context.workspace / "checkpoint"
        choice = choose(context.recipe.execution, path, context.device)
        if choice.kind == "streamed" and context.recipe.execution == "auto" and context.memo.pop(DENSE, None):
            _forget()
            choice = choose(context.recipe.execution, path, context.device)
        if choice.kind == "streamed":
            context.memo[WRITTEN] = _streamed(context, path)
        else:
            context.memo[WRITTEN] = load_written(path, context.device)
    model: LayeredModel = context.memo[WRITTEN]
    return model


def within_memory(
    context: StageContext, batch_size: int, work: Callable[[LayeredModel, int], T], *, written: bool = False
) -> T:
    """Do work on a model in batches, smaller ones where memory runs out, at last streamed.

    Args:
        context: of the stage.
        batch_size: sequences at a time to begin with; halved down to 1, then all over again with a streamed model.
        work: called with the model and a batch size, from the beginning each time.
        written: the model is the written checkpoint and not the dense one.

    Raises:
        EngineError: `out_of_memory` with the sizes where a streamed model and one sequence at a time are too much, or
            where the recipe asks for a resident one.
    """
    size = batch_size
    while True:
        model = shared_written(context) if written else shared_model(context)
        try:
            return work(model, size)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            failure = " ".join(str(error).split())
        # Outside of the handler, whose traceback holds on to the tensors.
        streamed = model.execution == "streamed"
        del model
        _forget()
        if size > 1:
            size //= 2
            context.emit.log(f"memory ran out; going on with {size} sequences at a time")
        elif not streamed and context.recipe.execution == "auto":
            name, path = (WRITTEN, context.workspace / "checkpoint") if written else (DENSE, context.model)
            context.memo.pop(name, None)
            _forget()
            context.memo[name] = _streamed(context, path)
            if not written:
                _note(context, Choice("streamed", "memory ran out with one sequence at a time"))
            size = batch_size
        else:
            raise EngineError(
                "out_of_memory",
                f"one sequence of {context.recipe.scoring.sequence_length} tokens is too much for the "
                f"{_size(free_bytes(context.device))} that are free on {context.device} ({failure}); lower "
                f"scoring.sequence_length{'' if streamed else ' or let execution be auto'}",
                permanent=False,
            )


def precision(context: StageContext) -> Any:
    """Return the context in which a run's hidden states are computed; see `worker.engine.device.autocast`."""
    stored = stored_dtype(context.model)
    return autocast(context.device, stored, compute_dtype(context.device, stored))


def _forget() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _size(count: int) -> str:
    return f"{count / 1e9:.2f} GB"
