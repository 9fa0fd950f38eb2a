"""The stages that choose: score every window, select one or several."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import Any

import torch

from app.core.architectures import ArchitectureError, hidden_size
from app.core.selection import (
    ONE_WINDOW,
    ParameterCounts,
    Selection,
    SelectionError,
    Target,
    WindowSize,
    first_start,
    least_window,
    window_size,
)
from app.core.windows import best_window, best_windows, in_words
from worker.engine import fetch, self_text
from worker.engine.context import StageContext, write_json
from worker.engine.device import sequences_at_once
from worker.engine.errors import EngineError
from worker.engine.execution import precision, resident_model, shared_model, within_memory
from worker.engine.hidden_states import LayeredModel
from worker.engine.scoring import METRICS, cosine, task
from worker.engine.scoring.metric import Candidates
from worker.engine.scoring.sampling import ScoreTable, score_windows
from worker.engine.text import calibration_windows

SCORES = "scores.json"
SELECTION = "selection.json"
_STATES_AT_ONCE = {"cpu": 1 << 26, "cuda": 1 << 31}
"""Numbers of hidden states kept side by side while scoring: 256 MB in float32, and 8 GB, which `within_memory` halves
where there is less."""


def score(context: StageContext) -> None:
    """Write `scores.json`: the scores of the windows, and on how many sequences; samples ``builtin:self`` text first.

    Raises:
        EngineError: `text_too_short`, `bad_text`, `not_finite`, `no_start_token`, `bad_target`, `needs_resident`.
    """
    recipe = context.recipe
    if recipe.calibration.path is None and context.home is None:
        self_text.ensure_self_text(context, context.read_json(fetch.OUTPUT)["hash"])
    decoder = shared_model(context)
    if what := recipe.needs_resident():
        resident_model(context, what)  # found out before hours are spent
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
        assert candidates is not None, "task ranks windows of one size"

        def progress(done: int, total: int) -> None:
            context.emit.progress(done, total, "patched windows")

        return task.rerank(model, windows, size, scored, candidates, progress)

    with precision(context):
        scored = within_memory(context, batch, scored_by)
        table = within_memory(context, batch, ranked) if metric.name == "task" else scored
    scored_table = _cosines(scored) if metric.name == "task" else table.scores()
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
            "shortlisted_by": {"metric": "cosine", "table": scored_table} if metric.name == "task" else None,
        },
    )
    shown = cosine.METRIC if metric.name == "task" else metric  # a shortlist is no picture, what made it is one
    context.emit.scores(shown.name, shown.better, scored_table)
    context.emit.log(f"scored by {metric.name}: {scored.stopped}")


def scoring_batch(decoder: LayeredModel, length: int) -> int:
    """Return how many sequences of `length` tokens to score at a time: their states h_0..h_L lie side by side."""
    states = (decoder.layer_count + 1) * length * hidden_size(decoder.config)
    return max(1, min(sequences_at_once(decoder.device.type, length), _STATES_AT_ONCE[decoder.device.type] // states))


def _cosines(scored: ScoreTable) -> list[list[float | None]]:
    return replace(scored, metric=cosine.METRIC).scores()


def _model(context: StageContext) -> tuple[dict[str, Any], ParameterCounts]:
    model = context.read_json(fetch.OUTPUT)
    counts = ParameterCounts(tuple(model["per_layer_parameters"]), model["outside_parameters"])
    return fetch.read_config(context.model), counts


def _size(context: StageContext, target: Target, selection: Selection = ONE_WINDOW) -> WindowSize:
    """Return what a target comes to in this model.

    Raises:
        EngineError: the target or the replacement does not fit it.
    """
    replacement, form = context.recipe.replacement, context.recipe.output.format
    config, counts = _model(context)
    try:
        return window_size(config, target, replacement.kind, form, counts, replacement.layers, selection)
    except (ArchitectureError, SelectionError) as error:
        raise EngineError(error.code, str(error)) from error


def _candidates(context: StageContext) -> Candidates | None:
    """Return the windows that selection chooses from: one where the request names it; None where sizes vary."""
    target, kind = context.recipe.target, context.recipe.replacement.kind
    if context.recipe.selection.windows > 1:
        return None
    size = _size(context, target).removed_count
    if target.window is not None:
        return Candidates(size, (target.window[0],))
    layers = len(context.read_json(fetch.OUTPUT)["per_layer_parameters"])
    return Candidates(size, tuple(range(first_start(kind), layers - size + 1)))


def select(context: StageContext) -> None:
    """Write `selection.json`: the windows that go, why, and what the result weighs.

    `windows` are numbered as the model that was scored is; `removed_layers`, `sparsity` and the parameters are those of
    the dense model, which is another one from the second round on. `layers` has the dense model's number for each block
    of the result, null for what was put in. Of several windows each gets a directory with a selection of its own.
    """
    chosen, reason = _chosen(context)
    sizes = [_size(context, Target(window=(start, end))) for start, end, _ in chosen]
    _, counts = _model(context)
    before = context.previous and json.loads((context.previous / SELECTION).read_text(encoding="utf-8"))
    layers: list[int | None] = before["layers"] if before else list(range(len(counts.per_layer)))
    gone = [layer for start, end, _ in chosen for layer in range(start, end)]
    removed = sorted({*(before["removed_layers"] if before else ()), *(layers[i] for i in gone)} - {None})
    put_in_and_gone = sum(counts.per_layer[layer] for layer in gone if layers[layer] is None)
    pruned = counts.dense - sum(size.removed_parameters - size.added_parameters for size in sizes)
    dense = before["parameters"]["dense"] if before else counts.dense
    added = sum(size.added_parameters for size in sizes) - put_in_and_gone
    for (start, end, _), size in reversed(list(zip(chosen, sizes, strict=True))):
        layers[start:end] = [None] * size.blocks_added
    windows = [{"start": start, "end": end, "score": score} for start, end, score in chosen]
    context.write_json(
        SELECTION,
        {
            "windows": windows,
            **(windows[0] if len(windows) == 1 else {}),
            "removed_layers": removed,
            "removed_count": len(removed),
            "layers": layers,
            "sparsity": 1 - pruned / dense,
            "added_parameters": added + (before["added_parameters"] if before else 0),
            "parameters": {"dense": dense, "pruned": pruned},
            "reason": reason,
        },
    )
    for number, window in enumerate(windows if len(windows) > 1 else ()):
        write_json(context.window(number) / SELECTION, {"windows": [window]})
    context.emit.selected([(start, end) for start, end, _ in chosen])
    scores = ", ".join("not a number" if score is None else f"{score:.4f}" for _, _, score in chosen)
    of_dense = f"; of the dense model {in_words(removed)} are gone" if before else ""
    context.emit.log(f"layers {in_words(gone)} go: {reason} ({scores}){of_dense}")


def _chosen(context: StageContext) -> tuple[list[tuple[int, int, float | None]], str]:
    """Return the windows (start, end, score) that go, in order, and why."""
    recipe, scores = context.recipe, context.read_json(SCORES)
    if recipe.target.window is not None:
        start, end = recipe.target.window
        return [(start, end, scores["table"][start][end - start - 1])], "the request names this window"
    total, count = _size(context, recipe.target, recipe.selection).removed_count, recipe.selection.windows
    config, counts = _model(context)
    replacement = recipe.replacement
    first = first_start(replacement.kind)
    best = "highest" if scores["better"] == "higher" else "lowest"
    try:
        if count == 1:
            start, value = best_window(scores["table"], total, scores["better"], first)
            reason = f"the {best} {scores['metric']} score of all windows of {total} layers"
            return [(start, start + total, value)], reason
        least = least_window(config, replacement.kind, recipe.output.format, counts, replacement.layers)
        windows = best_windows(scores["table"], total, count, scores["better"], first, least)
    except (ArchitectureError, SelectionError) as error:
        raise EngineError(error.code, str(error)) from error
    reason = f"the {best} sum of {scores['metric']} scores of all {count} separate windows of {total} layers together"
    return [(start, end, score) for start, end, score in windows], reason


def seed_everything(context: StageContext, stage: str) -> None:
    """Seed torch's global generators for a stage, for whatever draws without a generator of its own."""
    torch.manual_seed(context.seed(stage))
