"""Intervals of what is measured piece by piece, text in windows and speed in rounds: by drawing the pieces anew."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from app.core.stability import RESAMPLES, Interval, interval_of

_AT_ONCE = 1 << 20  # drawn pieces that exist at one time


def perplexity_ratio(
    dense: Sequence[float], pruned: Sequence[float], tokens: Sequence[int], *, seed: int = 0
) -> Interval | None:
    """Return perplexity pruned / dense and its interval; None where there are not two windows, or one is not finite.

    A window counts as a whole for both models, because its tokens depend on each other and the two models on the text.

    Args:
        dense: each window's negative log-likelihood in nats.
        pruned: the same of the pruned model.
        tokens: each window's predicted tokens.
        seed: of the bootstrap.
    """
    more = np.asarray(pruned, dtype=np.float64) - np.asarray(dense, dtype=np.float64)
    if len(more) < 2 or not np.isfinite(more).all():
        return None
    counts = np.asarray(tokens, dtype=np.float64)
    draws = _draws(len(more), seed)
    resampled = np.concatenate([more[drawn].sum(axis=1) / counts[drawn].sum(axis=1) for drawn in draws])
    exponents = np.append(resampled, more.sum() / counts.sum())
    if np.abs(exponents).max() > np.log(np.finfo(np.float64).max):
        return None
    ratios = np.exp(exponents)
    return interval_of(float(ratios[-1]), ratios[:-1])


def median(values: Sequence[float], *, seed: int = 0) -> Interval | None:
    """Return the median of the rounds' values and its interval; None where there are not two."""
    measured = np.asarray(values, dtype=np.float64)
    if len(measured) < 2:
        return None
    resampled = np.concatenate([np.median(measured[drawn], axis=1) for drawn in _draws(len(measured), seed)])
    return interval_of(float(np.median(measured)), resampled)


def _draws(count: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """Yield places of pieces drawn with replacement [resamples, count], in parts that fit into memory."""
    random = np.random.default_rng(seed)
    step = max(1, _AT_ONCE // count)
    for start in range(0, RESAMPLES, step):
        yield random.integers(count, size=(min(step, RESAMPLES - start), count))
