"""Whether the best window is better than the runner-up, or only looks so on the sequences that were drawn.

The sequences are drawn again with replacement (Efron's bootstrap, Annals of Statistics 7, 1979), both windows on the
same ones: what makes a sequence hard is hard for both, so that their difference varies far less than their scores.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from app.core.selection import Better

CONFIDENCE = 0.95
RESAMPLES = 1000
_DRAWN_AT_ONCE = 1 << 22


@dataclass(frozen=True)
class Separation:
    """The two best windows by their first layers, and the interval that the lead of the best lies in.

    The lead is in the metric's own unit, per token, and positive where the best window is better.
    """

    best: int
    runner_up: int
    low: float
    high: float

    @property
    def separated(self) -> bool:
        """Whether the whole interval is on the side of the best window."""
        return self.low > 0


def separation(scores: Tensor, tokens: Tensor, starts: tuple[int, ...], better: Better, seed: int) -> Separation | None:
    """Compare the two best of some windows; None where not two of them have a score.

    Args:
        scores: [sequences, windows] float64, one mean per sequence and window.
        tokens: [sequences], how many tokens each mean is over.
        starts: the windows' first layers.
        better: which scores are.
        seed: of the draws; same scores and same seed give the same interval.
    """
    if len(starts) < 2:
        return None
    signed = scores if better == "higher" else -scores
    means = (signed * tokens[:, None]).sum(0) / tokens.sum()
    ranked = means.nan_to_num(-torch.inf, neginf=-torch.inf).topk(2)
    if ranked.values.isinf().any():
        return None
    best, runner_up = ranked.indices.tolist()
    lead = signed[:, best] - signed[:, runner_up]
    generator = torch.Generator().manual_seed(seed)
    drawn = []
    for resamples in torch.split(torch.arange(RESAMPLES), max(1, _DRAWN_AT_ONCE // len(lead))):
        rows = torch.randint(len(lead), (len(resamples), len(lead)), generator=generator)
        drawn.append((lead * tokens)[rows].sum(1) / tokens[rows].sum(1))
    edges = torch.tensor([(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2], dtype=torch.float64)
    low, high = torch.cat(drawn).quantile(edges).tolist()
    return Separation(starts[best], starts[runner_up], low, high)
