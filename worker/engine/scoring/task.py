"""`task`: the best windows by cosine, ranked by what they are for: the loss after a cheap repair (the lowest goes).

A window's cosine says how little it changes the hidden state, not whether the rest of the model can do without the
change. So each of the best few is cut, patched with a linear map in closed form (ReplaceMe, arXiv 2505.02819), and
judged by the perplexity of the patched model on sequences that the map was not fitted on.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from worker.engine.hidden_states import LayeredModel
from worker.engine.replacements import linear_residual
from worker.engine.scoring import cosine
from worker.engine.scoring.metric import Candidates, Metric
from worker.engine.scoring.perplexity import losses, whole
from worker.engine.scoring.sampling import ScoreTable

SHORTLIST = 5
JUDGED_SHARE = 4
"""One sequence in four judges, the others are fitted on; a single one does both."""

METRIC = Metric(
    "task", "LLM-Streamline's cosine, arXiv 2403.19135, then ReplaceMe's map, arXiv 2505.02819", "lower",
    cosine.METRIC.scorer, shown=torch.exp,
)  # fmt: skip


def rerank(
    model: LayeredModel,
    windows: Tensor,
    batch_size: int,
    by_cosine: ScoreTable,
    candidates: Candidates,
    progress: Callable[[int, int], None] | None = None,
) -> ScoreTable:
    """Return the table of the shortlist: one row of perplexities after the patch, the other windows without a score.

    Args:
        model: the dense model.
        windows: token ids [sequences, length].
        batch_size: sequences at a time.
        by_cosine: the cosine scores of the same windows.
        candidates: the windows that selection chooses from.
        progress: told (done, total) windows of the shortlist.

    Raises:
        EngineError: `needs_resident` where the model's layers are streamed.
    """
    decoder = whole(model, "task")
    mean = by_cosine.mean()
    ranked = sorted(candidates.starts, key=lambda start: -mean[start, start + candidates.size].item())
    judges = torch.arange(len(windows)) % JUDGED_SHARE == JUDGED_SHARE - 1
    if not judges.any():
        judges[-1] = True
    fitted = windows[~judges] if not judges.all() else windows
    judging = windows[judges]
    shortlist = ranked[:SHORTLIST]
    empty = [torch.full_like(mean, torch.nan) for _ in judging]
    table = ScoreTable(METRIC, empty, [1.0] * len(judging), by_cosine.stopped)
    for done, start in enumerate(shortlist, start=1):
        end = start + candidates.size
        tensors, _ = linear_residual.fit(decoder, fitted, start, end, batch_size)
        block = linear_residual.block_of(tensors, decoder.device, decoder.dtype)
        with decoder.with_layers(start, end, block):
            nats = torch.cat([losses(decoder, batch) for batch in torch.split(judging, batch_size)])
        for matrix, value in zip(table.sequences, nats.tolist(), strict=True):
            matrix[start, end] = value
        if progress:
            progress(done, len(shortlist))
    return table
