"""The train stage: capture the hidden states around the window, and train or fit what takes its place."""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict
from typing import Any

from safetensors.torch import save
from torch import Tensor, nn

from app.core.architectures import FITTED_KINDS
from app.core.losses import runs_the_model
from worker.engine.activation_store import ActivationStore, disk_full, stored_bytes
from worker.engine.code_version import code_version
from worker.engine.context import REPLACEMENT, StageContext, sha256_of, write_bytes
from worker.engine.device import dtype_of, sequences_at_once
from worker.engine.events import finite
from worker.engine.execution import precision, resident_model, shared_model, weightless_model, within_memory
from worker.engine.hidden_states import LayeredModel
from worker.engine.losses import objective_of
from worker.engine.replacements import build, linear_merged, linear_residual
from worker.engine.replacements.least_squares import Solution, held_out_rows
from worker.engine.replacements.refit import down_projection, refit
from worker.engine.replacements.starts import Start
from worker.engine.stages import SELECTION
from worker.engine.text import calibration_windows
from worker.engine.training.group import Group
from worker.engine.training.loop import Plan, fit
from worker.engine.training.pairs import Arguments, Pairs, split
from worker.engine.training.peers import joined, shared_by
from worker.engine.training.recomputed import RecomputedStates
from worker.engine.training.state import Keeper

TRAINING = "training.json"
STATES = "training"
"""Where a run that is killed in the middle of training left its state; gone when the stage is done."""
HELD_OUT = "held_out"
"""Where in the scratch directory the held-out states lie while the others are computed anew."""


def train(context: StageContext) -> None:
    """Write `replacement.safetensors` (none for `none`) and `training.json`.

    Raises:
        EngineError: `disk_full` before the activations are written where they do not fit, and the model, which is
            streamed, cannot do without.
    """
    recipe = context.recipe
    start, end = _window(context)
    replacement = recipe.replacement
    if replacement.kind == "none":
        context.write_json(TRAINING, {"kind": "none", "kept": "nothing", "phases": [], "seconds": {}})
        return
    windows = calibration_windows(context, shared_model(context).tokenizer)
    if replacement.kind in FITTED_KINDS:
        _fit_in_closed_form(context, windows, start, end)
        return

    pairs, seconds = _captured(context, windows)
    decoder = shared_model(context)
    arguments = block_arguments(decoder, start, pairs.length, replacement.layers if replacement.kind == "layer" else 0)
    batch = replacement.batch_size

    def error(candidate: nn.Module) -> float:
        return pairs.error(candidate.float(), arguments, batch)

    start_from = Start(decoder, start, end, replacement.init, context.seed("init"), error, replacement.layers)
    block = build(replacement.kind, start_from)
    assert block is not None
    if replacement.init == "closed_form":
        down = down_projection(replacement.kind, block.float(), decoder.family)
        refit(block, down, pairs, arguments, batch)
    cut, untrained = pairs.error(None, arguments, batch), pairs.error(block.float(), arguments, batch)
    with joined(context, "train") as group:
        phases = _phases(context, block, pairs, arguments, group)
    trained = pairs.error(block, arguments, batch)
    _write_replacement(context, block.state_dict())
    context.write_json(
        TRAINING,
        {
            "kind": replacement.kind,
            "sequences": {"train": len(pairs.train), "held_out": len(pairs.held_out)},
            "tokens": len(pairs.train) * pairs.length,
            "activations": "stored" if isinstance(pairs.states, ActivationStore) else "recomputed",
            "phases": phases,
            "mse": {"cut": finite(cut), "start": finite(untrained), "trained": finite(trained)},
            # 1 is the plain cut, 0 the dense model.
            "relative_error": finite(trained / cut) if cut else 0.0,
            "kept": "trained" if any(phase["kept"] == "trained" for phase in phases) else "start",
            "diverged": any(phase["diverged"] for phase in phases),
            "processes": shared_by(context, "train"),
            "seconds": {"capture": seconds, "fit": sum(phase["seconds"] for phase in phases)},
        },
    )
    shutil.rmtree(context.workspace / STATES, ignore_errors=True)


def _window(context: StageContext) -> tuple[int, int]:
    """Return the window [start, end) to train for: of several each has a workspace, with a selection of its own."""
    (window,) = context.read_json(SELECTION)["windows"]
    return window["start"], window["end"]


def _captured(context: StageContext, windows: Tensor) -> tuple[Pairs, float]:
    """Return the pairs to train with, and the seconds that it took to store those that are stored."""
    start, end = _window(context)

    def captured(model: LayeredModel, size: int) -> ActivationStore:
        return ActivationStore.capture(
            model,
            windows[list(split(len(windows))[1])] if anew else windows,
            start,
            end,
            place,
            batch_size=size,
            progress=lambda done, total: context.emit.progress(done, total, "captured sequences"),
        )

    while True:
        anew = _computed_anew(context, windows)
        place = context.temporary / HELD_OUT if anew else context.temporary
        place.mkdir(exist_ok=True)
        with precision(context):
            store = within_memory(context, sequences_at_once(context.device, windows.shape[1]), captured)
        # Memory may have run out meanwhile: what is streamed now cannot compute anew.
        if not anew or shared_model(context).execution == "resident":
            return _pairs(context, shared_model(context), windows), store.seconds
        shutil.rmtree(place)


def _computed_anew(context: StageContext, windows: Tensor) -> bool:
    """Tell whether the states to train on are computed for each batch instead of being stored.

    That is so for one pass over them, which costs about the same, and where there is no room for them; a model that is
    streamed would read all its layers for each batch. Where processes share a processor, one model is enough for them
    as long as there is room.

    Raises:
        EngineError: `disk_full` where such a model's states may not take the room that they need.
    """
    replacement, model = context.recipe.replacement, shared_model(context)
    needed, allowed = stored_bytes(model, windows), context.activation_bytes
    if model.execution == "streamed":
        if allowed is not None and needed > allowed:
            raise disk_full(context.temporary, needed, allowed)
        return False
    # The state of the training and the checkpoint want some too.
    room = shutil.disk_usage(context.temporary).free // 2
    room = room if allowed is None else min(room, allowed)
    passes = replacement.epochs + (replacement.second_epochs if "+" in replacement.loss else 0)
    passes += replacement.init == "closed_form"
    if passes > 1 and needed > room:
        context.emit.log(
            f"the hidden states take {needed:,} bytes and there is room for {room:,}: they are computed anew in each "
            f"of {passes} passes"
        )
    one_model_each = context.device == "cuda" or shared_by(context, "train") == 1
    return needed > room or (passes == 1 and one_model_each)


def _pairs(context: StageContext, model: LayeredModel, windows: Tensor) -> Pairs:
    """Return the pairs out of what was captured: all of them, or those held out and the others computed anew."""
    length, held_out = windows.shape[1], context.temporary / HELD_OUT
    if not held_out.is_dir():
        return Pairs.split(ActivationStore.opened(model, length, context.temporary), windows)
    store = ActivationStore.opened(model, length, held_out)
    return Pairs.split(RecomputedStates(model, windows, _window(context), store, split(len(windows))[1]), windows)


def assist(context: StageContext, joining: AbstractContextManager[Group]) -> None:
    """Train along with another process that is in `train` and has captured: same data, same loop, nothing written."""
    replacement, (start, end) = context.recipe.replacement, _window(context)
    anew = (context.temporary / HELD_OUT).is_dir()
    of_states = not runs_the_model(replacement.kind, replacement.loss) and not anew
    decoder = weightless_model(context) if of_states else shared_model(context, beside=True)
    if anew:
        resident_model(context, "computing hidden states anew for each batch")
    windows = calibration_windows(context, decoder.tokenizer)
    pairs = _pairs(context, decoder, windows)
    layers = replacement.layers if replacement.kind == "layer" else 0
    arguments = block_arguments(decoder, start, windows.shape[1], layers)
    # Its form alone counts: the weights come from the other.
    block = build(replacement.kind, Start(decoder, start, end, "first", 0, lambda _: 0.0, replacement.layers))
    assert block is not None
    with joining as group:
        _phases(context, block.float(), pairs, arguments, group)


def _phases(
    context: StageContext, block: nn.Module, pairs: Pairs, arguments: Arguments, group: Group
) -> list[dict[str, Any]]:
    losses = context.recipe.replacement.loss.split("+")
    return [_phase(context, number, loss, block, pairs, arguments, group) for number, loss in enumerate(losses)]


def _phase(
    context: StageContext, number: int, loss: str, block: nn.Module, pairs: Pairs, arguments: Arguments, group: Group
) -> dict[str, Any]:
    """Train for one loss, from a kept state where there is one, and return the history for `training.json`."""
    recipe, selection = context.recipe, context.read_json(SELECTION)
    replacement = recipe.replacement
    plan = Plan(
        replacement.second_epochs if number else replacement.epochs,
        replacement.second_learning_rate if number else replacement.learning_rate,
        replacement.batch_size,
        context.seed(f"train {number}"),
    )
    everything = {
        "recipe": recipe.to_json(),
        "selection": selection,
        "ids": _sha256(pairs.input_ids),
        # Stored and computed anew they differ in their last bits: no training goes on with the other.
        "stored": isinstance(pairs.states, ActivationStore),
        "code": code_version(),
        "device": context.device,
    }
    keeper = Keeper(
        context.workspace / STATES / f"{number}.safetensors",
        sha256_of(everything),
        context.save_every_seconds,
        writes=group.rank == 0,
    )

    def report(step: int, steps: int, values: Mapping[str, float]) -> None:
        context.emit.metric(loss, steps=steps, **values)
        context.emit.progress(step, steps, f"steps of {loss}")

    def tail(hidden: Tensor) -> Tensor:
        return resident_model(context, f"replacement.loss {loss}").logits_from(_window(context)[1], hidden)

    objective = objective_of(loss, tail, replacement.divergence)
    history = fit(block, pairs, arguments, plan, objective, report=report, keeper=keeper, group=group)
    if history.kept == "start":
        context.emit.log(f"training for {loss} did not beat its start, which is kept")
    if history.diverged:
        context.emit.log(f"the {loss} loss diverged; training ended early with the best state")
    if history.stopped_early:
        context.emit.log(f"{loss} no longer got better; training ended early with the best state")
    if history.micro_batch < plan.batch_size:
        context.emit.log(f"memory ran out; {history.micro_batch} of {plan.batch_size} sequences went in at once")
    found = {name: finite(value) if isinstance(value, float) else value for name, value in asdict(history).items()}
    return {"loss": loss, **found, "kept": history.kept}


def _sha256(tensor: Tensor) -> str:
    return hashlib.sha256(tensor.contiguous().numpy().tobytes()).hexdigest()


def _fit_in_closed_form(context: StageContext, windows: Tensor, start: int, end: int) -> None:
    """Write the outputs of `train` for a kind that is fitted while the data stream by."""
    began = time.monotonic()
    kind = context.recipe.replacement.kind

    def progress(done: int, total: int) -> None:
        context.emit.progress(done, total, "sequences")

    def fitted(model: LayeredModel, size: int) -> tuple[dict[str, Tensor], Solution]:
        if kind == "linear_merged":
            return linear_merged.fit(model, windows, start, end, size, progress)
        return linear_residual.fit(model, windows, start, end, size, progress)

    tensors, solution = within_memory(context, sequences_at_once(context.device, windows.shape[1]), fitted)
    _write_replacement(context, tensors)
    held_out = sum(held_out_rows(len(windows)))
    cut, left = solution.uncorrected, solution.held_out
    context.write_json(
        TRAINING,
        {
            "kind": kind,
            "sequences": {"train": max(1, len(windows) - held_out), "held_out": held_out},
            "tokens": max(1, len(windows) - held_out) * windows.shape[1],
            "phases": [],
            "mse": {"cut": finite(cut), "start": finite(cut), "trained": finite(left)},
            "relative_error": finite(left / cut) if cut else 0.0,
            "ridge": solution.ridge,
            "kept": "start" if solution.ridge is None else "closed_form",
            "diverged": False,
            "seconds": {"fit": time.monotonic() - began},
        },
    )
    if solution.ridge is None:
        context.emit.log("no linear map beats the plain cut on held-out states, which is kept")


def _write_replacement(context: StageContext, tensors: Mapping[str, Tensor]) -> None:
    wanted = context.recipe.output.dtype
    dtype = dtype_of(wanted) if wanted else shared_model(context).stored_dtype
    written = {name: tensor.to("cpu", dtype).contiguous() for name, tensor in tensors.items()}
    write_bytes(context.workspace / REPLACEMENT, save(written))


def block_arguments(decoder: LayeredModel, start: int, length: int, layers: int) -> Arguments:
    """Return what a block takes beside the hidden states: mask and positions for each of its decoder layers.

    Args:
        decoder: the dense model.
        start: the place of the block's first layer.
        length: tokens per sequence.
        layers: how many decoder layers the block is made of; 0 for a block without attention, which takes nothing.
    """
    known: dict[int, dict[str, Any]] = {}

    def arguments(batch: int) -> dict[str, Any]:
        if batch not in known:
            each = [decoder.layer_arguments(start + i, batch, length) for i in range(layers)]
            known[batch] = {"per_layer": each} if layers > 1 else each[0] if each else {}
        return known[batch]

    return arguments
