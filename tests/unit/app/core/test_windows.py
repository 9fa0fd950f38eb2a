"""What the chooser promises: windows that lie apart, have the wanted total, and no others with a better sum."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.selection import Better, SelectionError
from app.core.windows import best_windows, in_words, runs

LAYERS = 8
Scores = list[list[float | None]]
TABLES = st.lists(
    st.lists(st.one_of(st.floats(-1, 1), st.none(), st.just(math.nan)), min_size=LAYERS, max_size=LAYERS),
    min_size=LAYERS,
    max_size=LAYERS,
)


def cut_to_shape(table: Scores) -> Scores:
    return [[score if i + n < LAYERS else None for n, score in enumerate(row)] for i, row in enumerate(table)]


def every_choice(table: Scores, total: int, count: int, first: int, least: int) -> list[list[tuple[int, int, float]]]:
    """All choices of windows, tried one by one."""
    known = [
        (start, start + n + 1, score)
        for start, row in enumerate(table)
        for n, score in enumerate(row)
        if score is not None and math.isfinite(score) and start >= first and n + 1 >= least
    ]
    return [
        list(choice)
        for choice in itertools.combinations(known, count)
        if sum(end - start for start, end, _ in choice) == total
        and all(a[1] < b[0] for a, b in itertools.pairwise(choice))
    ]


@given(
    table=TABLES.map(cut_to_shape),
    total=st.integers(1, LAYERS),
    count=st.integers(1, 3),
    better=st.sampled_from(("higher", "lower")),
    first=st.integers(0, 1),
    least=st.integers(1, 2),
)
def test_no_other_windows_that_lie_apart_have_a_better_sum(
    table: Scores, total: int, count: int, better: Better, first: int, least: int
) -> None:
    choices = every_choice(table, total, count, first, least)
    if not choices:
        with pytest.raises(SelectionError, match="finite"):
            best_windows(table, total, count, better, first, least)
        return
    found = best_windows(table, total, count, better, first, least)
    assert found in choices, "apart, in order, large enough, and of the wanted total"
    pick = max if better == "higher" else min
    assert sum(w[2] for w in found) == pytest.approx(pick(sum(w[2] for w in choice) for choice in choices))


def test_on_a_tie_the_windows_that_end_first_win() -> None:
    table: Scores = cut_to_shape([[0.5] * LAYERS for _ in range(LAYERS)])
    assert best_windows(table, 3, 2, least=1) == [(0, 1, 0.5), (2, 4, 0.5)]


@given(st.sets(st.integers(0, 40)))
def test_runs_hold_exactly_the_layers_and_do_not_touch(layers: set[int]) -> None:
    found = runs(layers)
    assert {layer for start, end in found for layer in range(start, end)} == layers
    assert all(a[1] < b[0] for a, b in itertools.pairwise(found))


@pytest.mark.parametrize(
    ("layers", "words"), [([4], "4"), ([3, 4, 5], "3 to 5"), ([1, 3, 4, 9], "1, 3 to 4 and 9"), ([], "")]
)
def test_layers_are_said_as_a_person_reads_them(layers: list[int], words: str) -> None:
    assert in_words(layers) == words
