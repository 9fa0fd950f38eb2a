"""The healing step, reported under `train`: LoRA on the pruned model, on the text that the replacement was trained on.

The loop is the one of the replacements, with its held-out rule: the best state is kept, or the untouched start where
healing never beat it.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from functools import partial

import torch
from safetensors.torch import load_file
from torch import Tensor

from app.core.discovery import discover
from app.core.safetensors_file import read_checkpoint
from worker.engine.code_version import code_version
from worker.engine.context import REPLACEMENT, StageContext, sha256_of
from worker.engine.decoder import Decoder
from worker.engine.events import finite
from worker.engine.execution import resident_model, shared_model
from worker.engine.healing.adapters import Adapters, Place, attached
from worker.engine.healing.updates import UPDATES, Updates, of_replacement, write_updates
from worker.engine.ledger import sha256_of_file
from worker.engine.losses.lm import NextToken
from worker.engine.pruned import InPlace, swapped, trained_blocks
from worker.engine.recipe import Healing
from worker.engine.surgery import usual_dtype
from worker.engine.text import calibration_windows
from worker.engine.training.group import Group
from worker.engine.training.loop import History, Plan, fit
from worker.engine.training.pairs import Sequences
from worker.engine.training.peers import joined, shared_by
from worker.engine.training.state import Keeper

HEALING = "healing.json"
STATES = "healing"
"""Where a run that is killed in the middle of healing left its state; gone when the step is done."""


def heal(context: StageContext) -> None:
    """Write `healing.safetensors`, what is added to the weights, and `healing.json`.

    Raises:
        EngineError: `needs_resident` where the run streams its layers; `healing_refused` where nothing can be adapted;
            `out_of_memory` where not even one sequence at a time fits.
    """
    found = _healed(context, joined(context, "heal"))
    history, sequences = found.history, found.sequences
    write_updates(context.workspace / UPDATES, found.updates if history.kept == "trained" else {})
    told = {name: finite(value) if isinstance(value, float) else value for name, value in asdict(history).items()}
    context.write_json(
        HEALING,
        {
            **asdict(found.healing),
            "maps": len(found.updates),
            "trained_parameters": sum(u.left.numel() + u.right.numel() for u in found.updates.values()),
            "sequences": {"train": len(sequences.train), "held_out": len(sequences.held_out)},
            "tokens": len(sequences.train) * sequences.length,
            "loss": {"before": finite(history.start), "after": finite(history.best)},
            "kept": history.kept,
            "diverged": history.diverged,
            "seconds": history.seconds,
            "processes": shared_by(context, "heal"),
            "phases": [{"loss": "lm", **told, "kept": history.kept}],
        },
    )
    shutil.rmtree(context.workspace / STATES, ignore_errors=True)


def assist(context: StageContext, joining: AbstractContextManager[Group]) -> None:
    """Heal along with another process that is in `heal`: same data, same loop, nothing written."""
    shared_model(context, beside=True)  # how the run's model runs is the other's to tell
    _healed(context, joining)


@dataclass(frozen=True)
class _Healed:
    healing: Healing
    sequences: Sequences
    history: History
    updates: Updates


def _healed(context: StageContext, joining: AbstractContextManager[Group]) -> _Healed:
    healing = context.recipe.healing
    assert healing is not None
    decoder = resident_model(context, "healing")
    windows = calibration_windows(context, decoder.tokenizer)
    windows = windows[: max(1, healing.tokens // windows.shape[1])]
    sequences = Sequences.split(windows, decoder.device, decoder.stored_dtype)
    blocks = trained_blocks(context, decoder, {})

    def logits(input_ids: Tensor) -> Tensor:
        found: Tensor = decoder.model(input_ids=input_ids.to(torch.long), use_cache=False).logits
        return found

    with (
        attached(_places(context, decoder, blocks), healing, logits, context.seed("healing")) as adapters,
        swapped(decoder, blocks),
        joining as group,
    ):
        history = _trained(context, healing, adapters, sequences, group)
        return _Healed(healing, sequences, history, adapters.updates())


def _trained(
    context: StageContext, healing: Healing, adapters: Adapters, sequences: Sequences, group: Group
) -> History:
    files = [context.window(number) / REPLACEMENT for number in range(context.recipe.selection.windows)]
    everything = {
        "recipe": context.recipe.to_json(),
        "selection": context.read_json("selection.json"),
        "ids": hashlib.sha256(sequences.input_ids.contiguous().numpy().tobytes()).hexdigest(),
        "replacements": [sha256_of_file(file) for file in files if file.is_file()],
        "code": code_version(),
        "device": context.device,
    }
    keeper = Keeper(
        context.workspace / STATES / "lora.safetensors",
        sha256_of(everything),
        context.save_every_seconds,
        writes=group.rank == 0,
    )

    def report(step: int, steps: int, values: Mapping[str, float]) -> None:
        context.emit.metric("healing", steps=steps, **values)
        context.emit.progress(step, steps, "steps of healing")

    plan = Plan(healing.epochs, healing.learning_rate, healing.batch_size, context.seed("heal"))
    history = fit(
        adapters,
        sequences,
        lambda _: {},
        plan,
        NextToken(lambda logits: logits),
        report=report,
        keeper=keeper,
        group=group,
    )
    _tell(context, history, len(adapters.weights) // 2)
    return history


def _tell(context: StageContext, history: History, maps: int) -> None:
    if history.diverged:
        context.emit.log("the loss of healing diverged; it ended early with the best state")
    if history.stopped_early:
        context.emit.log("healing no longer got better; it ended early with the best state")
    if history.kept == "start":
        context.emit.log("healing did not beat the model as it was, which is kept")
    else:
        context.emit.log(
            f"healing {maps} linear maps brought the held-out loss from {history.start:.4f} to {history.best:.4f}"
        )


def _places(context: StageContext, decoder: Decoder, blocks: Sequence[InPlace]) -> list[Place]:
    """Return the kept layers, and the blocks that stand for the others.

    A weight has a name where it lies in a file as it is in memory, in the dtype that healed weights are written in.
    """
    kind = context.recipe.replacement.kind
    checkpoint = read_checkpoint(context.model)
    stored = dict(checkpoint.entries())
    layers = discover(decoder.config, {name: entry.shape for name, entry in stored.items()}).layers
    usual = usual_dtype(checkpoint)

    def of_layer(index: int, name: str, weight: Tensor) -> str | None:
        full = f"{layers}.{index}.{name}"
        entry = stored.get(full)
        there = entry is not None and entry.dtype == usual and tuple(entry.shape) == tuple(weight.shape)
        return full if there else None

    def of_block(window: int, trained: Mapping[str, Tensor], name: str, weight: Tensor) -> str | None:
        if name in trained:
            return of_replacement(window, name)
        # A map is folded into a layer that otherwise stays.
        return of_layer(blocks[window].first, name, weight) if kind == "linear_merged" else None

    gone = {index for place in blocks for index in range(place.first, place.end)}
    kept = [index for index in range(decoder.layer_count) if index not in gone]
    places = [Place(decoder.layers[index], partial(of_layer, index)) for index in kept]
    for window, place in enumerate(blocks):
        if place.block is not None:
            trained = load_file(context.window(window) / REPLACEMENT)
            places.append(Place(place.block, partial(of_block, window, trained)))
    return places
