"""What the closed form promises: the least squares, from sums alone, with the ridge that the held-out data want."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from worker.engine.errors import EngineError
from worker.engine.replacements.least_squares import NormalEquations, Sums, collect, held_out_rows


def data(tokens: int, noise: float, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(tokens, 6, generator=generator)
    true = torch.randn(6, 3, generator=torch.Generator().manual_seed(99))
    return features, features @ true + noise * torch.randn(tokens, 3, generator=generator), true


def filled(tokens: int, noise: float) -> NormalEquations:
    equations = NormalEquations()
    for sums, seed in ((equations.fitted, 0), (equations.held_out, 1)):
        features, wrong, _ = data(tokens, noise, seed)
        for part in range(0, tokens, 7):
            sums.add(features[part : part + 7], wrong[part : part + 7])
    return equations


def test_what_is_linear_is_found_exactly() -> None:
    solution = filled(50, 0.0).solve()
    torch.testing.assert_close(solution.correction.float(), data(1, 0.0)[2], rtol=1e-5, atol=1e-5)
    assert solution.held_out < 1e-9 < solution.uncorrected


def test_the_error_out_of_the_sums_is_the_one_out_of_the_data() -> None:
    features, wrong, _ = data(40, 0.5)
    sums, correction = Sums(), torch.randn(6, 3, dtype=torch.float64)
    sums.add(features.view(2, 20, 6), wrong.view(2, 20, 3))
    assert sums.error(correction) == pytest.approx((features.double() @ correction - wrong).square().mean().item())
    assert sums.error(None) == pytest.approx(wrong.double().square().mean().item())


def test_the_ridge_is_larger_where_data_are_few_and_noisy() -> None:
    few, many = filled(8, 2.0).solve(), filled(2000, 2.0).solve()
    assert many.ridge is not None
    assert few.ridge is None or few.ridge > many.ridge
    assert few.held_out <= few.uncorrected


def test_no_correction_is_kept_where_none_helps() -> None:
    equations = NormalEquations()
    features = torch.randn(30, 4, generator=torch.Generator().manual_seed(2))
    equations.fitted.add(features, features[:, :2])
    equations.held_out.add(features, -100 * features[:, :2])
    solution = equations.solve()
    assert solution.ridge is None
    assert not solution.correction.any()
    assert solution.held_out == solution.uncorrected


def test_features_that_depend_on_each_other_are_no_obstacle() -> None:
    equations = NormalEquations()
    features, wrong, _ = data(30, 0.1)
    for sums in (equations.fitted, equations.held_out):
        sums.add(torch.cat([features, features], dim=1), wrong)
    solution = equations.solve()
    assert torch.isfinite(solution.correction).all()
    assert solution.held_out < 0.1 * solution.uncorrected


def test_states_that_are_no_numbers_are_refused() -> None:
    equations = NormalEquations()
    equations.fitted.add(torch.full((3, 2), torch.inf), torch.ones(3, 2))
    equations.held_out.add(torch.ones(3, 2), torch.ones(3, 2))
    with pytest.raises(EngineError) as caught:
        equations.solve()
    assert caught.value.code == "not_finite"


@pytest.mark.parametrize(("count", "held"), [(1, [0]), (5, [4]), (20, [19]), (45, [19, 39])])
def test_every_twentieth_sequence_is_held_out_and_at_least_one(count: int, held: list[int]) -> None:
    assert [row for row, out in enumerate(held_out_rows(count)) if out] == held


def test_a_single_sequence_is_fitted_on_and_held_out() -> None:
    equations = NormalEquations()
    collect(equations, torch.ones(1, 4, 2), torch.ones(1, 4, 3), [True], alone=True)
    assert equations.fitted.numbers == equations.held_out.numbers == 12
