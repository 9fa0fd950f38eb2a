"""The middle stages: score every window, select one, train its replacement."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn

from app.core.architectures import ArchitectureError, hidden_size
from app.core.selection import ParameterCounts, SelectionError, Target, best_window, window_size
from worker.engine import fetch, self_text
from worker.engine.activation_store import ActivationStore
from worker.engine.context import StageContext, sha256_of, write_bytes
from worker.engine.device import dtype_of
from worker.engine.errors import EngineError
from worker.engine.events import finite
from worker.engine.execution import resident_model, shared_model, within_memory
from worker.engine.hidden_states import LayeredModel
from worker.engine.losses import objective_of
from worker.engine.replacements import build
from worker.engine.replacements.starts import Start
from worker.engine.scoring.cosine import score_windows
from worker.engine.text import calibration_windows
from worker.engine.training import Arguments, Keeper, Pairs, Plan, fit

SCORES = "scores.json"
SELECTION = "selection.json"
TRAINING = "training.json"
REPLACEMENT = "replacement.safetensors"
STATES = "training"
"""Where a run that is killed in the middle of training left its state; gone when the stage is done."""

_TOKENS_AT_ONCE = 8192
_STATES_AT_ONCE = 1 << 26  # numbers of hidden states kept side by side while scoring, 256 MB in float32


def score(context: StageContext) -> None:
    """Write `scores.json`: the score of every window of every size; samples ``builtin:self`` text first.

    Raises:
        EngineError: `text_too_short`, `bad_text`, `not_finite`, `no_start_token`.
    """
    recipe = context.recipe
    if recipe.calibration.path is None:
        self_text.ensure_self_text(context, context.read_json(fetch.OUTPUT)["hash"])
    decoder = shared_model(context)
    windows = calibration_windows(context, decoder.tokenizer)[: recipe.scoring.sequences]
    length, layers = windows.shape[1], decoder.layer_count
    batch = scoring_batch(decoder, length)
    del decoder  # memory that runs out may call for another

    def progress(done: int, total: int) -> None:
        context.emit.progress(done, total, "sequences")

    table = within_memory(context, batch, lambda model, size: score_windows(model, windows, size, progress))
    context.write_json(
        SCORES,
        {
            "metric": recipe.scoring.metric,
            "sequences": len(windows),
            "sequence_length": length,
            "tokens": windows.numel(),
            "layers": layers,
            "table": table.scores(),
        },
    )


def scoring_batch(decoder: LayeredModel, length: int) -> int:
    """Return how many sequences of `length` tokens to score at a time: their states h_0..h_L lie side by side."""
    states = (decoder.layer_count + 1) * length * hidden_size(decoder.config)
    return max(1, min(_TOKENS_AT_ONCE // length, _STATES_AT_ONCE // states))


def select(context: StageContext) -> None:
    """Write `selection.json`: the window that goes, why, and what the result weighs."""
    recipe, model = context.recipe, context.read_json(fetch.OUTPUT)
    config = fetch.read_config(context.model)
    counts = ParameterCounts(tuple(model["per_layer_parameters"]), model["outside_parameters"])
    kind, form = recipe.replacement.kind, recipe.output.format
    scores = context.read_json(SCORES)
    try:
        size = window_size(config, recipe.target, kind, form, counts)
        if recipe.target.window is not None:
            start, end = recipe.target.window
            value, reason = scores["table"][start][end - start - 1], "the request names this window"
        else:
            start, value = best_window(scores["table"], size.removed_count)
            end = start + size.removed_count
            reason = f"the highest {scores['metric']} of all windows of {size.removed_count} layers"
            # Layers may differ in size: count what really goes.
            size = window_size(config, Target(window=(start, end)), kind, form, counts)
    except (ArchitectureError, SelectionError) as error:
        raise EngineError(error.code, str(error)) from error
    context.write_json(
        SELECTION,
        {
            "start": start,
            "end": end,
            "removed_layers": list(range(start, end)),
            "removed_count": end - start,
            "sparsity": size.sparsity,
            "added_parameters": size.added_parameters,
            "parameters": {"dense": size.dense_parameters, "pruned": size.pruned_parameters},
            "score": value,
            "reason": reason,
        },
    )
    context.emit.log(f"layers {start} to {end - 1} go: {reason} ({value:.4f})")


def train(context: StageContext) -> None:
    """Write `replacement.safetensors` (none for `none`) and `training.json`.

    Raises:
        EngineError: `disk_full` before the activations are written where they cannot fit.
    """
    recipe, selection = context.recipe, context.read_json(SELECTION)
    start, end = selection["start"], selection["end"]
    replacement = recipe.replacement
    if replacement.kind == "none":
        context.write_json(TRAINING, {"kind": "none", "kept": "nothing", "phases": [], "seconds": {}})
        return
    windows = calibration_windows(context, shared_model(context).tokenizer)

    def captured(model: LayeredModel, size: int) -> ActivationStore:
        return ActivationStore.capture(
            model,
            windows,
            start,
            end,
            context.temporary,
            batch_size=size,
            progress=lambda done, total: context.emit.progress(done, total, "captured sequences"),
        )

    store = within_memory(context, max(1, _TOKENS_AT_ONCE // windows.shape[1]), captured)
    decoder = shared_model(context)
    pairs = Pairs.split(store, windows)
    arguments = block_arguments(decoder, start, store.length, replacement.kind == "layer")
    batch = replacement.batch_size

    def error(candidate: nn.Module) -> float:
        return pairs.error(candidate.float(), arguments, batch)

    block = build(replacement.kind, Start(decoder, start, end, replacement.init, context.seed("init"), error))
    assert block is not None
    cut, untrained = pairs.error(None, arguments, batch), pairs.error(block.float(), arguments, batch)
    phases = [
        _phase(context, number, loss, block, pairs, arguments)
        for number, loss in enumerate(replacement.loss.split("+"))
    ]
    dtype = dtype_of(recipe.output.dtype) if recipe.output.dtype else decoder.stored_dtype
    tensors = {name: tensor.to("cpu", dtype).contiguous() for name, tensor in block.state_dict().items()}
    trained = pairs.error(block, arguments, batch)
    write_bytes(context.workspace / REPLACEMENT, save(tensors))
    context.write_json(
        TRAINING,
        {
            "kind": replacement.kind,
            "sequences": {"train": len(pairs.train), "held_out": len(pairs.held_out)},
            "tokens": len(pairs.train) * store.length,
            "phases": phases,
            "mse": {"cut": finite(cut), "start": finite(untrained), "trained": finite(trained)},
            # 1 is the plain cut, 0 the dense model.
            "relative_error": finite(trained / cut) if cut else 0.0,
            "kept": "trained" if any(phase["kept"] == "trained" for phase in phases) else "start",
            "diverged": any(phase["diverged"] for phase in phases),
            "seconds": {"capture": store.seconds, "fit": sum(phase["seconds"] for phase in phases)},
        },
    )
    shutil.rmtree(context.workspace / STATES, ignore_errors=True)


def _phase(
    context: StageContext, number: int, loss: str, block: nn.Module, pairs: Pairs, arguments: Arguments
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
    everything = {"recipe": recipe.to_json(), "selection": selection, "ids": _sha256(pairs.input_ids)}
    keeper = Keeper(
        context.workspace / STATES / f"{number}.safetensors", sha256_of(everything), context.save_every_seconds
    )

    def report(step: int, steps: int, values: Mapping[str, float]) -> None:
        context.emit.metric(**values)
        context.emit.progress(step, steps, f"steps of {loss}")

    def tail(hidden: Tensor) -> Tensor:
        return resident_model(context, f"replacement.loss {loss}").logits_from(selection["end"], hidden)

    objective = objective_of(loss, tail, replacement.divergence)
    history = fit(block, pairs, arguments, plan, objective, report=report, keeper=keeper)
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


def block_arguments(decoder: LayeredModel, start: int, length: int, is_layer: bool) -> Arguments:
    """Return what a block takes beside the hidden states: for a decoder layer mask and positions, else nothing."""
    known: dict[int, dict[str, Any]] = {}

    def arguments(batch: int) -> dict[str, Any]:
        if not is_layer:
            return {}
        if batch not in known:
            known[batch] = decoder.layer_arguments(start, batch, length)
        return known[batch]

    return arguments


def seed_everything(context: StageContext, stage: str) -> None:
    """Seed torch's global generators for a stage, for whatever draws without a generator of its own."""
    torch.manual_seed(context.seed(stage))
