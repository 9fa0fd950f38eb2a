"""How many sequences are scored: all that were asked for, or as many as tell the best window from the runner-up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from worker.engine.events import finite
from worker.engine.hidden_states import LayeredModel
from worker.engine.scoring import cosine
from worker.engine.scoring.metric import Candidates, Metric
from worker.engine.scoring.separation import CONFIDENCE, Separation, separation

FLOOR = 8
"""Sequences that are scored in any case."""

BETWEEN_LOOKS = 4
"""Each look is at so many times the sequences of the last: looking often would turn chance into certainty, and a
streamed model reads all its layers for each."""


@dataclass
class ScoreTable:
    """Scores per sequence, and how it came that there are no more.

    Attributes:
        metric: which one.
        sequences: one [L+1, L+1] float64 matrix per sequence, see `Scorer`.
        tokens: how many tokens each of them is the mean over.
        stopped: why scoring ended, in words.
        separation: the two best windows at the end; None where nothing was compared.
    """

    metric: Metric
    sequences: list[Tensor] = field(default_factory=list)
    tokens: list[float] = field(default_factory=list)
    stopped: str = ""
    separation: Separation | None = None

    def mean(self) -> Tensor:
        """Return the mean over all tokens [L+1, L+1], float64; NaN where nothing was scored."""
        weights = torch.tensor(self.tokens, dtype=torch.float64)
        return (torch.stack(self.sequences) * weights[:, None, None]).sum(0) / weights.sum()

    def scores(self) -> list[list[float | None]]:
        """Return ``table[i][n - 1]`` = score of [i, i + n) for i in 0..L-1, n in 1..L; None where there is none."""
        shown = self.metric.shown(self.mean())
        layers = len(shown) - 1
        return [
            [finite(shown[i, i + n].item()) if i + n <= layers else None for n in range(1, layers + 1)]
            for i in range(layers)
        ]

    def compare(self, candidates: Candidates, seed: int) -> Separation | None:
        """Return how well the best candidate is told from the runner-up by now."""
        ends = torch.tensor(candidates.starts) + candidates.size
        scores = torch.stack(self.sequences)[:, list(candidates.starts), ends.tolist()]
        tokens = torch.tensor(self.tokens, dtype=torch.float64)
        return separation(scores, tokens, candidates.starts, self.metric.better, seed)


def score_windows(
    model: LayeredModel,
    windows: Tensor,
    batch_size: int,
    progress: Callable[[int, int], None] | None = None,
    *,
    metric: Metric = cosine.METRIC,
    candidates: Candidates | None = None,
    adaptive: bool = False,
    seed: int = 0,
) -> ScoreTable:
    """Score windows of layers on token windows.

    Args:
        model: the dense model.
        windows: token ids [sequences, length].
        batch_size: sequences at a time.
        progress: told (done, total) sequences.
        metric: see `worker.engine.scoring.METRICS`.
        candidates: the windows that selection chooses from; what adaptive sampling looks at.
        adaptive: whether to stop as soon as a bootstrap interval separates the best candidate from the runner-up.
        seed: of the bootstrap.

    Raises:
        EngineError: `not_finite`, naming the layer; `needs_resident` for a metric that a streamed model cannot do.
    """
    scorer = metric.scorer(model, candidates)
    table = ScoreTable(metric, stopped=f"all {len(windows)} sequences were scored")
    look_at = FLOOR if adaptive and candidates is not None else len(windows)
    while (scored := len(table.sequences)) < len(windows):

        def done(count: int, scored: int = scored) -> None:
            if progress:
                progress(scored + count, len(windows))

        scores, tokens = scorer.add(windows[scored:look_at], batch_size, done)
        table.sequences += scores.unbind()
        table.tokens += tokens.tolist()
        look_at *= BETWEEN_LOOKS
        if not adaptive or candidates is None:
            continue
        table.separation = table.compare(candidates, seed)
        if len(table.sequences) < len(windows) and (reason := _reason(table)):
            table.stopped = reason
            break
    return table


def _reason(table: ScoreTable) -> str | None:
    count, found = len(table.sequences), table.separation
    if found is None:
        return f"there is one window to choose from, and {count} sequences give it a score"
    if not found.separated:
        return None
    return (
        f"{count} sequences separate the best window, from layer {found.best} on, from the runner-up, from layer "
        f"{found.runner_up} on ({CONFIDENCE:.0%} bootstrap interval)"
    )
