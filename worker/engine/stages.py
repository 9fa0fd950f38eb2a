"""The stages that choose: score every window, select one."""

from __future__ import annotations

from dataclasses import asdict, replace

import torch

from app.core.architectures import ArchitectureError, hidden_size
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
from worker.engine.context import StageContext
from worker.engine.errors import EngineError
from worker.engine.execution import precision, resident_model, shared_model, within_memory
from worker.engine.hidden_states import LayeredModel
from worker.engine.scoring import METRICS, cosine, task
from worker.engine.scoring.metric import Candidates
from worker.engine.scoring.sampling import ScoreTable, score_windows
from worker.engine.text import calibration_windows

SCORES = "scores.json"
SELECTION = "selection.json"
TOKENS_AT_ONCE = 8192
"""Of a pass that keeps little."""
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
    if recipe.healing is not None:
        resident_model(context, "healing")  # found out before hours are spent
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

    with precision(context):
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
    return max(1, min(TOKENS_AT_ONCE // length, _STATES_AT_ONCE // states))


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


def seed_everything(context: StageContext, stage: str) -> None:
    """Seed torch's global generators for a stage, for whatever draws without a generator of its own."""
    torch.manual_seed(context.seed(stage))
