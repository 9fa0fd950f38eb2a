"""What the bootstrap promises: it tells a real lead from chance, and says the same thing every time."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from worker.engine.scoring.separation import separation


def scores(lead: float, noise: float, sequences: int = 16) -> Tensor:
    """Three windows; what makes a sequence hard is shared, window 1 leads window 2."""
    generator = torch.Generator().manual_seed(1)
    shared = torch.randn(sequences, 1, generator=generator, dtype=torch.float64)
    own = noise * torch.randn(sequences, 3, generator=generator, dtype=torch.float64)
    return shared + own + torch.tensor([-5.0, lead, 0.0], dtype=torch.float64)


TOKENS = torch.full((16,), 12.0, dtype=torch.float64)


def test_a_clear_lead_is_separated_although_sequences_differ_far_more() -> None:
    found = separation(scores(0.1, 0.05), TOKENS, (4, 5, 6), "higher", 0)
    assert found is not None
    assert (found.best, found.runner_up, found.separated) == (5, 6, True)
    assert 0 < found.low < found.high < 0.2


def test_a_lead_within_the_noise_is_not() -> None:
    values = torch.zeros(16, 2, dtype=torch.float64)
    values[:, 0] = 0.01 + 0.5 * (-1.0) ** torch.arange(16)
    found = separation(values, TOKENS, (4, 5), "higher", 0)
    assert found is not None
    assert (found.best, found.separated) == (4, False)


def test_where_low_scores_are_better_the_lowest_leads() -> None:
    found = separation(-scores(0.1, 0.05), TOKENS, (4, 5, 6), "lower", 0)
    assert found is not None
    assert (found.best, found.runner_up, found.separated) == (5, 6, True)


def test_equal_windows_are_never_separated() -> None:
    found = separation(torch.ones(16, 2, dtype=torch.float64), TOKENS, (0, 1), "higher", 0)
    assert found is not None
    assert (found.low, found.high, found.separated) == (0.0, 0.0, False)


def test_the_seed_decides_the_interval() -> None:
    values = scores(0.1, 0.1)
    first, again, other = (separation(values, TOKENS, (4, 5, 6), "higher", seed) for seed in (0, 0, 1))
    assert first == again != other


def test_the_interval_covers_what_is_true_about_as_often_as_it_says() -> None:
    covered = 0
    for seed in range(200):
        generator = torch.Generator().manual_seed(seed)
        lead = 1 + torch.randn(64, 1, generator=generator, dtype=torch.float64)
        both = torch.cat([lead, torch.zeros_like(lead)], dim=1)
        found = separation(both, torch.ones(64, dtype=torch.float64), (0, 1), "higher", seed)
        assert found is not None
        covered += found.low <= 1 <= found.high
    assert 0.88 <= covered / 200 <= 0.99


def test_a_single_window_has_nothing_to_be_told_from() -> None:
    assert separation(torch.ones(16, 1), TOKENS, (3,), "higher", 0) is None


def test_a_window_without_a_finite_score_never_leads() -> None:
    values = scores(0.1, 0.05)
    values[3, 1] = torch.nan
    found = separation(values, TOKENS, (4, 5, 6), "higher", 0)
    assert found is not None
    assert found.best == pytest.approx(6)
