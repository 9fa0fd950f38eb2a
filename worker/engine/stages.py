"""The middle stages: score every window, select one, train its replacement."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
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
from worker.engine.context import StageContext, write_bytes
from worker.engine.decoder import Decoder, shared_decoder
from worker.engine.device import dtype_of
from worker.engine.errors import EngineError
from worker.engine.events import finite
from worker.engine.replacements import build, linear_merged, linear_residual
from worker.engine.replacements.least_squares import held_out_rows
from worker.engine.replacements.refit import down_projection, refit
from worker.engine.replacements.starts import Start
from worker.engine.scoring import METRICS, cosine, task
from worker.engine.scoring.metric import Candidates
from worker.engine.scoring.sampling import ScoreTable, score_windows
from worker.engine.text import calibration_windows
from worker.engine.training import Arguments, Pairs, Plan, fit

SCORES = "scores.json"
SELECTION = "selection.json"
TRAINING = "training.json"
REPLACEMENT = "replacement.safetensors"

_TOKENS_AT_ONCE = 8192
_STATES_AT_ONCE = 1 << 26  # numbers of hidden states kept side by side while scoring, 256 MB in float32


def score(context: StageContext) -> None:
    """Write `scores.json`: the scores of the windows, and on how many sequences; samples ``builtin:self`` text first.

    Raises:
        EngineError: `text_too_short`, `bad_text`, `not_finite`, `no_start_token`, `bad_target`.
    """
    recipe = context.recipe
    if recipe.calibration.path is None:
        self_text.ensure_self_text(context, context.read_json(fetch.OUTPUT)["hash"])
    decoder = shared_decoder(context)
    windows = calibration_windows(context, decoder.tokenizer)[: recipe.scoring.sequences]
    length = windows.shape[1]
    states = (len(decoder.layers) + 1) * length * hidden_size(decoder.config)
    batch = max(1, min(_TOKENS_AT_ONCE // length, _STATES_AT_ONCE // states))
    metric = METRICS[recipe.scoring.metric]
    candidates = _candidates(context)
    scored = score_windows(
        decoder,
        windows,
        batch,
        lambda done, total: context.emit.progress(done, total, "sequences"),
        metric=metric,
        candidates=candidates,
        # The shortlist is judged on all sequences, so that none is spared.
        adaptive=recipe.scoring.adaptive and metric.name != "task",
        seed=context.seed("score"),
    )
    table = scored
    if metric.name == "task":

        def patched(done: int, total: int) -> None:
            context.emit.progress(done, total, "patched windows")

        table = task.rerank(decoder, windows, batch, scored, candidates, patched)
    context.write_json(
        SCORES,
        {
            "metric": metric.name,
            "paper": metric.paper,
            "better": metric.better,
            "sequences": len(scored.sequences),
            "sequences_available": len(windows),
            "stopped": scored.stopped,
            "separation": scored.separation and dataclasses.asdict(scored.separation),
            "sequence_length": length,
            "tokens": len(scored.sequences) * length,
            "layers": len(decoder.layers),
            "table": table.scores(),
            "shortlisted_by": {"metric": "cosine", "table": _cosines(scored)} if metric.name == "task" else None,
        },
    )
    context.emit.log(f"scored by {metric.name}: {scored.stopped}")


def _cosines(scored: ScoreTable) -> list[list[float | None]]:
    return dataclasses.replace(scored, metric=cosine.METRIC).scores()


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
        context.write_json(TRAINING, {"kind": "none", "kept": "nothing", "steps": [], "held_out": [], "seconds": {}})
        return
    decoder = shared_decoder(context)
    windows = calibration_windows(context, decoder.tokenizer)
    if replacement.kind in FITTED_KINDS:
        _fit_in_closed_form(context, decoder, windows, start, end)
        return
    store = ActivationStore.capture(
        decoder,
        windows,
        start,
        end,
        context.temporary,
        batch_size=max(1, _TOKENS_AT_ONCE // windows.shape[1]),
        progress=lambda done, total: context.emit.progress(done, total, "captured sequences"),
    )
    pairs = Pairs.split(store)
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
    plan = Plan(replacement.epochs, replacement.learning_rate, batch, context.seed("train"))

    def report(step: int, steps: int, values: dict[str, float]) -> None:
        context.emit.metric(**values)
        context.emit.progress(step, steps, "steps")

    history = fit(block.float(), pairs, arguments, plan, report)
    _write_replacement(context, decoder, block.state_dict())
    cut = pairs.error(None, arguments, batch)
    context.write_json(
        TRAINING,
        {
            "kind": replacement.kind,
            "sequences": {"train": len(pairs.train), "held_out": len(pairs.held_out)},
            "tokens": len(pairs.train) * store.length,
            "steps": history.steps,
            "held_out": history.held_out,
            "cut_mse": finite(cut),
            "start_mse": finite(history.start_mse),
            "best_mse": finite(history.best_mse),
            "best_step": history.best_step,
            # 1 is the plain cut, 0 the dense model.
            "relative_error": finite(history.best_mse / cut) if cut else 0.0,
            "kept": history.kept,
            "diverged": history.diverged,
            "seconds": {"capture": store.seconds, "fit": history.seconds},
        },
    )
    if history.kept == "start":
        context.emit.log("training did not beat the untrained start, which is kept")
    if history.diverged:
        context.emit.log("the loss diverged; training ended early with the best state")


def _fit_in_closed_form(context: StageContext, decoder: Decoder, windows: Tensor, start: int, end: int) -> None:
    """Write the outputs of `train` for a kind that is fitted while the data stream by."""
    began = time.monotonic()
    kind, batch = context.recipe.replacement.kind, max(1, _TOKENS_AT_ONCE // windows.shape[1])

    def progress(done: int, total: int) -> None:
        context.emit.progress(done, total, "sequences")

    if kind == "linear_merged":
        tensors, solution = linear_merged.fit(decoder, windows, start, end, batch, progress)
    else:
        block, solution = linear_residual.fit(decoder, windows, start, end, batch, progress)
        tensors = block.state_dict()
    _write_replacement(context, decoder, tensors)
    held_out = sum(held_out_rows(len(windows)))
    context.write_json(
        TRAINING,
        {
            "kind": kind,
            "sequences": {"train": max(1, len(windows) - held_out), "held_out": held_out},
            "tokens": max(1, len(windows) - held_out) * windows.shape[1],
            "steps": [],
            "held_out": [{"step": 0, "mse": finite(solution.held_out)}],
            "cut_mse": finite(solution.uncorrected),
            "best_mse": finite(solution.held_out),
            "relative_error": finite(solution.held_out / solution.uncorrected) if solution.uncorrected else 0.0,
            "ridge": solution.ridge,
            "kept": "start" if solution.ridge is None else "closed_form",
            "seconds": {"fit": time.monotonic() - began},
        },
    )
    if solution.ridge is None:
        context.emit.log("no linear map beats the plain cut on held-out states, which is kept")


def _write_replacement(context: StageContext, decoder: Decoder, tensors: Mapping[str, Tensor]) -> None:
    wanted = context.recipe.output.dtype
    dtype = dtype_of(wanted) if wanted else decoder.stored_dtype
    written = {name: tensor.to("cpu", dtype).contiguous() for name, tensor in tensors.items()}
    write_bytes(context.workspace / REPLACEMENT, save(written))


def block_arguments(decoder: Decoder, start: int, length: int, layers: int) -> Arguments:
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
