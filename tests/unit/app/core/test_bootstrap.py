"""Intervals of perplexity ratios and speed-ups: against plain resampling, and where there is nothing to resample."""

from __future__ import annotations

import math

import numpy as np
import pytest

from app.core.bootstrap import median, perplexity_ratio


def test_the_ratio_is_that_of_the_sums_and_its_interval_that_of_whole_windows() -> None:
    random = np.random.default_rng(1)
    tokens = random.integers(5, 20, size=40)
    dense = random.normal(2.5, 0.3, size=40) * tokens
    pruned = dense + random.normal(0.1, 0.05, size=40) * tokens
    found = perplexity_ratio(dense.tolist(), pruned.tolist(), tokens.tolist())
    assert found is not None
    assert found.value == pytest.approx(math.exp(pruned.sum() / tokens.sum()) / math.exp(dense.sum() / tokens.sum()))
    ratios = []
    for _ in range(4000):
        drawn = random.integers(40, size=40)
        ratios.append(math.exp((pruned[drawn].sum() - dense[drawn].sum()) / tokens[drawn].sum()))
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(ratios, (0.025, 0.975))), abs=3e-3)
    assert found == perplexity_ratio(dense.tolist(), pruned.tolist(), tokens.tolist()), "the same each time"


@pytest.mark.parametrize("pruned", [[1.0], [1.0, math.nan], [1.0, math.inf], [1.0, 1e6]])
def test_one_window_and_what_is_no_number_have_no_interval(pruned: list[float]) -> None:
    assert perplexity_ratio([0.5] * len(pruned), pruned, [1] * len(pruned)) is None


def test_the_median_lies_within_its_rounds() -> None:
    found = median([1.0, 1.2, 1.1, 1.5, 1.3])
    assert found is not None
    assert found.value == 1.2
    assert 1.0 <= found.low < 1.2 < found.high <= 1.5
    assert median([1.2]) is None
