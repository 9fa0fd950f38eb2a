"""The middle stages: score every window, select one, train its replacement."""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn

from app.core.architectures import FITTED_KINDS, ArchitectureError, hidden_size
from app.core.selection import (
    ParameterCounts,
    SelectionError,
    Target,
    WindowSize,
    best_window,
    first_start,
    window_size,
)
from worker.engine import fetch, self_text
from worker.engine.activation_store import ActivationStore
from worker.engine.context import StageContext, sha256_of, write_bytes
from worker.engine.device import dtype_of
from worker.engine.errors import EngineError
from worker.engine.events import finite
from worker.engine.execution import resident_model, shared_model, within_memory
from worker.engine.hidden_states import LayeredModel
from worker.engine.losses import objective_of
from worker.engine.replacements import build, linear_merged, linear_residual
from worker.engine.replacements.least_squares import Solution, held_out_rows
from worker.engine.replacements.refit import down_projection, refit
from worker.engine.replacements.starts import Start
from worker.engine.scoring import METRICS, cosine, task
from worker.engine.scoring.metric import Candidates
from worker.engine.scoring.sampling import ScoreTable, score_windows
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
    """Write `scores.json`: the scores of the windows, and on how many sequences; samples ``builtin:self`` text first.

    Raises:
        EngineError: `text_too_short`, `bad_text`, `not_finite`, `no_start_token`, `bad_target`, `needs_resident`.
    """
    recipe = context.recipe
    if recipe.calibration.path is None:
        self_text.ensure_self_text(context, context.read_json(fetch.OUTPUT)["hash"])
    decoder = shared_model(context)
    windows = calibration_windows(context, decoder.tokenizer)[: recipe.scoring.sequences]
    length, layers = windows.shape[1], decoder.layer_count
    batch = scoring_batch(decoder, length)
    del decoder  # memory that runs out may call for another

    metric = METRICS[recipe.scoring.metric]
    candidates = _candidates(context)

    def scored_by(model: LayeredModel, size: int) -> ScoreTable:
        return score_windows(
            model,
            windows,
            size,
            lambda done, total: context.emit.progress(done, total, "sequences"),
            metric=metric,
            candidates=candidates,
            # The shortlist is judged on all sequences, so that none is spared.
            adaptive=recipe.scoring.adaptive and metric.name != "task",
            seed=context.seed("score"),
        )

    def ranked(model: LayeredModel, size: int) -> ScoreTable:
        def progress(done: int, total: int) -> None:
            context.emit.progress(done, total, "patched windows")

        return task.rerank(model, windows, size, scored, candidates, progress)

    scored = within_memory(context, batch, scored_by)
    table = within_memory(context, batch, ranked) if metric.name == "task" else scored
    context.write_json(
        SCORES,
        {
            "metric": metric.name,
            "paper": metric.paper,
            "better": metric.better,
            "sequences": len(scored.sequences),
            "sequences_available": len(windows),
            "stopped": scored.stopped,
            "separation": scored.separation and asdict(scored.separation),
            "sequence_length": length,
            "tokens": len(scored.sequences) * length,
            "layers": layers,
            "table": table.scores(),
            "shortlisted_by": {"metric": "cosine", "table": _cosines(scored)} if metric.name == "task" else None,
        },
    )
    context.emit.log(f"scored by {metric.name}: {scored.stopped}")


def scoring_batch(decoder: LayeredModel, length: int) -> int:
    """Return how many sequences of `length` tokens to score at a time: their states h_0..h_L lie side by side."""
    states = (decoder.layer_count + 1) * length * hidden_size(decoder.config)
    return max(1, min(_TOKENS_AT_ONCE // length, _STATES_AT_ONCE // states))


def _cosines(scored: ScoreTable) -> list[list[float | None]]:
    return replace(scored, metric=cosine.METRIC).scores()


def _size(context: StageContext, target: Target) -> WindowSize:
    """Return what a target comes to in this model.

    Raises:
        EngineError: the target or the replacement does not fit it.
    """
    replacement, model = context.recipe.replacement, context.read_json(fetch.OUTPUT)
    counts = ParameterCounts(tuple(model["per_layer_parameters"]), model["outside_parameters"])
    config = fetch.read_config(context.model)
    form = context.recipe.output.format
    try:
        return window_size(config, target, replacement.kind, form, counts, replacement.layers)
    except (ArchitectureError, SelectionError) as error:
        raise EngineError(error.code, str(error)) from error


def _candidates(context: StageContext) -> Candidates:
    """Return the windows that selection chooses from: one where the request names it."""
    target, kind = context.recipe.target, context.recipe.replacement.kind
    size = _size(context, target).removed_count
    if target.window is not None:
        return Candidates(size, (target.window[0],))
    layers = len(context.read_json(fetch.OUTPUT)["per_layer_parameters"])
    return Candidates(size, tuple(range(first_start(kind), layers - size + 1)))


def select(context: StageContext) -> None:
    """Write `selection.json`: the window that goes, why, and what the result weighs."""
    recipe, scores = context.recipe, context.read_json(SCORES)
    size = _size(context, recipe.target)
    if recipe.target.window is not None:
        start, end = recipe.target.window
        value, reason = scores["table"][start][end - start - 1], "the request names this window"
    else:
        first = first_start(recipe.replacement.kind)
        try:
            start, value = best_window(scores["table"], size.removed_count, scores["better"], first)
        except SelectionError as error:
            raise EngineError(error.code, str(error)) from error
        end = start + size.removed_count
        best = "highest" if scores["better"] == "higher" else "lowest"
        reason = f"the {best} {scores['metric']} score of all windows of {size.removed_count} layers"
        # Layers may differ in size: count what really goes.
        size = _size(context, Target(window=(start, end)))
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
    known = "not a number" if value is None else f"{value:.4f}"
    context.emit.log(f"layers {start} to {end - 1} go: {reason} ({known})")


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
    if replacement.kind in FITTED_KINDS:
        _fit_in_closed_form(context, windows, start, end)
        return

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
    arguments = block_arguments(decoder, start, store.length, replacement.layers if replacement.kind == "layer" else 0)
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
    phases = [
        _phase(context, number, loss, block, pairs, arguments)
        for number, loss in enumerate(replacement.loss.split("+"))
    ]
    trained = pairs.error(block, arguments, batch)
    _write_replacement(context, block.state_dict())
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

    tensors, solution = within_memory(context, max(1, _TOKENS_AT_ONCE // windows.shape[1]), fitted)
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


def seed_everything(context: StageContext, stage: str) -> None:
    """Seed torch's global generators for a stage, for whatever draws without a generator of its own."""
    torch.manual_seed(context.seed(stage))
