"""Ridge regression from sums that are collected while the data stream by; nothing of the data is kept.

With features F [tokens, features] and what is still wrong D [tokens, hidden], the correction C minimises
|F C - D|^2 + a |C|^2: C = (F'F + aI)^-1 F'D. Both products are collected in float64, over the sequences that are fitted
on and, apart from them, over those held out, so that the ridge `a` is chosen without another pass:
|F C - D|^2 = tr(C' F'F C) - 2 tr(C' F'D) + |D|^2 on any sums.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from worker.engine.errors import EngineError

RIDGES = (1e-8, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Relative to the mean square of a feature, times the number of tokens."""

HELD_OUT_EVERY = 20
"""One sequence in twenty chooses the ridge; where there are fewer, the last one does."""


@dataclass
class Sums:
    """F'F [features, features], F'D [features, hidden] and |D|^2 over some tokens, float64."""

    gram: Tensor | None = None
    cross: Tensor | None = None
    square: float = 0.0
    numbers: int = 0

    def add(self, features: Tensor, wrong: Tensor) -> None:
        """Take in tokens: features [..., features] and what is wrong [..., hidden], of any floating dtype."""
        F, D = features.flatten(0, -2).double(), wrong.flatten(0, -2).double()
        gram, cross = F.mT @ F, F.mT @ D
        self.gram = gram if self.gram is None else self.gram.add_(gram)
        self.cross = cross if self.cross is None else self.cross.add_(cross)
        self.square += float(D.square().sum())
        self.numbers += D.numel()

    def error(self, correction: Tensor | None) -> float:
        """Return the mean squared error that a correction [features, hidden] leaves, None for no correction."""
        left = self.square
        if correction is not None:
            assert self.gram is not None
            assert self.cross is not None
            left += float((correction * (self.gram @ correction - 2 * self.cross)).sum())
        return max(left, 0.0) / max(self.numbers, 1)


@dataclass(frozen=True)
class Solution:
    """The correction [features, hidden] float64 with the lowest held-out error.

    Attributes:
        correction: all zeros where none is better than no correction.
        ridge: the chosen one of `RIDGES`, None for no correction.
        held_out: mean squared error on the held-out tokens.
        uncorrected: the same without the correction.
    """

    correction: Tensor
    ridge: float | None
    held_out: float
    uncorrected: float


@dataclass
class NormalEquations:
    """The sums of the sequences that are fitted on, and of those held out."""

    fitted: Sums = field(default_factory=Sums)
    held_out: Sums = field(default_factory=Sums)

    def solve(self) -> Solution:
        """Return the best correction over the grid of ridges.

        Raises:
            EngineError: `not_finite` where a hidden state was NaN or infinite.
        """
        F, C = self.fitted.gram, self.fitted.cross
        assert F is not None
        assert C is not None
        if not (torch.isfinite(F).all() and torch.isfinite(C).all()):
            raise EngineError("not_finite", "a hidden state at the window is NaN or infinite; check the model")
        uncorrected = self.held_out.error(None)
        best = Solution(torch.zeros_like(C), None, uncorrected, uncorrected)
        scale = F.diagonal().mean()
        for ridge in RIDGES:
            damped = F.clone()
            damped.diagonal().add_(ridge * scale)
            factor, failed = torch.linalg.cholesky_ex(damped)
            if failed:
                continue  # too little ridge for features that depend on each other
            correction = torch.cholesky_solve(C, factor)
            error = self.held_out.error(correction)
            if error < best.held_out:
                best = Solution(correction, ridge, error, uncorrected)
        return best


def held_out_rows(count: int) -> list[bool]:
    """Return which of `count` sequences are held out: every twentieth, else the last one."""
    rows = [row % HELD_OUT_EVERY == HELD_OUT_EVERY - 1 for row in range(count)]
    return rows if any(rows) else [row == count - 1 for row in range(count)]


def collect(equations: NormalEquations, features: Tensor, wrong: Tensor, held_out: list[bool], *, alone: bool) -> None:
    """Add a batch to the sums that its sequences belong to.

    Args:
        equations: the sums.
        features: [batch, sequence, features].
        wrong: [batch, sequence, hidden].
        held_out: for each sequence of the batch.
        alone: whether there is one sequence in all, which then serves as both.
    """
    mask = torch.tensor(held_out, device=features.device)
    if mask.any():
        equations.held_out.add(features[mask], wrong[mask])
    if alone or not mask.all():
        rows = torch.ones_like(mask) if alone else ~mask
        equations.fitted.add(features[rows], wrong[rows])
