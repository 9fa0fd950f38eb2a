"""Stability, flips and intervals against values worked out by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.core.stability import Answer, compare, confidence, mean_of, retained, stability, weights

E = math.e


def answers(rows: Sequence[tuple[float, tuple[float, ...]]]) -> list[Answer]:
    """Answers of options of one token each, so that sums and means are the same."""
    return [Answer(score, nll, tuple(-value for value in nll)) for score, nll in rows]


def as_the_published_script(dense: Sequence[Answer], pruned: Sequence[Answer]) -> float:
    matches = sum(a.score == b.score for a, b in zip(dense, pruned, strict=True))
    return float(weights(confidence([answer.nll for answer in dense]))[:matches].sum())


# Deviations 1 and 0: the weights are e / (e + 1) = 0.7311 and 1 / (e + 1) = 0.2689.
DENSE = answers([(1.0, (1.0, 3.0)), (1.0, (2.0, 2.0))])


@pytest.mark.parametrize(
    ("pruned", "by_hand", "published"),
    [
        ((1.0, 1.0), 1.0, 1.0),  # both questions as before
        ((1.0, 0.0), E / (E + 1), E / (E + 1)),  # only the confident one as before
        ((0.0, 1.0), 1 / (E + 1), E / (E + 1)),  # only the other one: the script takes the first weight anyway
        ((0.0, 0.0), 0.0, 0.0),
    ],
)
def test_each_matching_question_counts_with_its_own_weight(
    pruned: tuple[float, float], by_hand: float, published: float
) -> None:
    other = answers([(score, (1.0, 1.0)) for score in pruned])
    comparison = compare(DENSE, other)
    assert comparison.stability is not None
    assert comparison.stability.value == pytest.approx(by_hand, abs=1e-12)
    assert as_the_published_script(DENSE, other) == pytest.approx(published, abs=1e-12)


def test_both_wrong_is_the_same_behaviour() -> None:
    # Deviations sqrt(6), 0 and 0; dense wrong, right, wrong; pruned wrong, wrong, right.
    dense = answers([(0.0, (1.0, 4.0, 7.0)), (1.0, (2.0, 2.0, 2.0)), (0.0, (5.0, 5.0, 5.0))])
    pruned = answers([(0.0, (1.0, 2.0, 3.0)), (0.0, (2.0, 2.0, 3.0)), (1.0, (5.0, 1.0, 5.0))])
    comparison = compare(dense, pruned)
    assert comparison.stability is not None
    assert comparison.stability.value == pytest.approx(math.exp(math.sqrt(6)) / (math.exp(math.sqrt(6)) + 2))
    assert comparison.flips is not None
    assert (comparison.flips.right_to_wrong, comparison.flips.wrong_to_right) == (1, 1)
    assert comparison.flips.rate.value == pytest.approx(2 / 3)


def test_the_deviation_is_the_populations_and_the_dense_models() -> None:
    assert confidence([(1.0, 2.0)])[0] == 0.5
    flat = answers([(1.0, (1.0, 1.0)), (0.0, (1.0, 1.0))])
    sharp = answers([(1.0, (0.0, 9.0)), (1.0, (0.0, 1.0))])
    comparison = compare(flat, sharp)
    assert comparison.stability is not None
    assert comparison.stability.value == pytest.approx(0.5), "the pruned model's confidence plays no part"


def test_confident_flips_are_counted_among_the_more_confident_half() -> None:
    dense = answers([(1.0, (0.0, 8.0)), (1.0, (0.0, 6.0)), (1.0, (0.0, 2.0)), (1.0, (0.0, 1.0))])
    pruned = answers([(0.0, (0.0, 8.0)), (1.0, (0.0, 6.0)), (0.0, (0.0, 2.0)), (0.0, (0.0, 1.0))])
    flips = compare(dense, pruned).flips
    assert flips is not None
    assert flips.confident_flipped == 0.5
    assert flips.rate.value == 0.75


def test_the_divergence_is_of_the_option_distributions() -> None:
    dense = [Answer(1.0, (1.0, 1.0), (math.log(0.75), math.log(0.25)))]
    pruned = [Answer(1.0, (1.0, 1.0), (math.log(0.5), math.log(0.5)))]
    assert compare(dense, pruned).kl == pytest.approx(0.75 * math.log(1.5) + 0.25 * math.log(0.5))
    assert compare(dense, dense).kl == 0.0


def test_grades_have_a_mean_but_no_flips_and_no_stability() -> None:
    comparison = compare([Answer(0.5), Answer(0.1)], [Answer(0.25), Answer(0.05)])
    assert comparison.accuracy == {"dense": pytest.approx(0.3), "pruned": pytest.approx(0.15)}
    assert comparison.flips is None
    assert comparison.stability is None
    assert comparison.kl is None


def test_right_answers_without_options_flip_but_have_no_stability() -> None:
    comparison = compare([Answer(1.0), Answer(0.0)], [Answer(0.0), Answer(0.0)])
    assert comparison.flips is not None
    assert comparison.flips.right_to_wrong == 1
    assert comparison.flips.confident_flipped is None
    assert comparison.stability is None


def test_tasks_count_the_same_in_the_mean_however_many_questions_they_have() -> None:
    large = compare(answers([(1.0, (0.0, 1.0))] * 30), answers([(1.0, (0.0, 1.0))] * 30))
    small = compare(answers([(1.0, (0.0, 1.0))] * 2), answers([(0.0, (0.0, 1.0))] * 2))
    mean = mean_of([large, small])
    assert mean.accuracy == {"dense": 1.0, "pruned": 0.5}
    assert mean.stability is not None
    assert mean.stability.value == 0.5
    assert mean.retained_accuracy is not None
    assert mean.retained_accuracy.value == 0.5


def test_nothing_is_retained_of_nothing() -> None:
    wrong = compare([Answer(0.0)], [Answer(1.0)])
    assert retained([wrong]) is None


def test_the_interval_narrows_with_the_questions_and_is_the_same_each_time() -> None:
    random = np.random.default_rng(1)

    def drawn(count: int) -> tuple[list[Answer], list[Answer]]:
        return tuple(
            [Answer(float(random.random() < share), (0.0, random.random()), (0.0, 1.0)) for _ in range(count)]
            for share in (0.8, 0.6)
        )  # type: ignore[return-value]

    few, many = compare(*(some := drawn(30))).stability, compare(*drawn(3000)).stability
    assert few is not None
    assert many is not None
    assert few.low <= few.value <= few.high
    assert many.high - many.low < (few.high - few.low) / 5
    assert compare(*some).stability == few


@pytest.mark.parametrize(("dense", "pruned"), [([], []), (DENSE, DENSE[:1])])
def test_different_questions_cannot_be_compared(dense: list[Answer], pruned: list[Answer]) -> None:
    with pytest.raises(ValueError):
        compare(dense, pruned)


rows = st.tuples(st.booleans(), st.booleans(), st.lists(st.floats(0, 50), min_size=2, max_size=5))


@settings(max_examples=50)
@given(st.lists(rows, min_size=1, max_size=12))
def test_stability_is_a_share_and_the_order_of_questions_does_not_matter(
    drawn: list[tuple[bool, bool, list[float]]],
) -> None:
    certain = confidence([nll for _, _, nll in drawn])
    dense, pruned = (np.array([row[side] for row in drawn]) for side in (0, 1))
    value = stability(certain, dense, pruned)
    assert -1e-9 <= value <= 1 + 1e-9
    assert stability(certain, dense, dense) == pytest.approx(1)
    backwards = stability(certain[::-1], dense[::-1], pruned[::-1])
    assert backwards == pytest.approx(value)


def test_groups_by_confidence_are_of_equal_size_and_say_how_often_the_models_agree() -> None:
    """20 questions, the dense model always right and ever surer; the pruned one is wrong on the ten least sure."""
    dense = [Answer(1.0, (0.0, float(spread)), (1.0, 0.0)) for spread in range(20)]
    pruned = [Answer(float(number >= 10), (0.0, 1.0), (1.0, 0.0)) for number in range(20)]
    groups = compare(dense, pruned).by_confidence
    assert [(group.questions, group.agreement) for group in groups] == [(10, 0.0), (10, 1.0)]
    assert groups[0].confidence == pytest.approx(np.mean([spread / 2 for spread in range(10)]))
    assert compare(dense[:19], pruned[:19]).by_confidence == (), "too few for two groups"


@pytest.mark.parametrize("count", [2, 3, 7, 49, 500])
def test_models_that_agree_everywhere_have_exactly_one_within_their_interval(count: int) -> None:
    answers = [Answer(1.0, (0.0, 0.1 + place / 7), (1.0, 0.0)) for place in range(count)]
    found = compare(answers, answers).stability
    assert found is not None
    assert (found.low, found.value, found.high) == (1.0, 1.0, 1.0)
