"""What a metric is: the one protocol behind which all of them stand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from app.core.selection import Better
from worker.engine.hidden_states import LayeredModel


@dataclass(frozen=True)
class Candidates:
    """The windows that selection chooses from: `size` layers, from one of the `starts` on."""

    size: int
    starts: tuple[int, ...]


class Scorer(Protocol):
    """A metric at work on one model."""

    def add(self, windows: Tensor, batch_size: int, done: Callable[[int], None]) -> tuple[Tensor, Tensor]:
        """Score on some sequences.

        Args:
            windows: token ids [sequences, length], without padding.
            batch_size: sequences at a time.
            done: told after each batch how many of the sequences are scored.

        Returns:
            scores [sequences, L+1, L+1] float64 on the CPU, at [i, i + n] the mean over tokens of the window
            [i, i + n), NaN where it was not scored; and how many tokens each mean is over, [sequences] float64.
        """
        ...


@dataclass(frozen=True)
class Metric:
    """A metric, where it comes from, and which of its scores mean that a window is worth less.

    Attributes:
        name: as in the contract.
        paper: where it was proposed or compared.
        better: whether the window with the highest or the lowest score goes.
        scorer: sets it to work; the candidates are for metrics that cost a pass per window and leave the others out.
        shown: from means over tokens to what the table holds.
    """

    name: str
    paper: str
    better: Better
    scorer: Callable[[LayeredModel, Candidates | None], Scorer]
    shown: Callable[[Tensor], Tensor] = lambda mean: mean
