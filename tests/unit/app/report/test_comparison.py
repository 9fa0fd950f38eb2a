"""What comparing jobs promises: only what differs is told, and the front holds exactly what nothing beats."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.report.comparison import compare, flattened, front, mean_stability
from app.report.plots import pareto
from tests.unit.app.report.reports import JOB, full

coordinates = st.none() | st.floats(0.1, 10)


def job(name: str, ratio: float | None, speedup: float | None, parameters: int, **spec: Any) -> dict[str, Any]:
    metrics = full()["metrics"] | {"perplexity_ratio": ratio, "speedup": speedup}
    metrics["parameters"] = {"dense": 100, "pruned": parameters}
    return JOB | {"id": name, "spec": JOB["spec"] | spec, "result": JOB["result"] | {"metrics": metrics}}


JOBS = [
    job("a", 1.1, 1.5, 75, seed=1, output={"repo": "team/a"}),
    job("b", 1.2, 1.4, 75, seed=2, output={"repo": "team/b"}),
    job("c", 1.5, 2.0, 50, target={"layers": 12}, labels={"x": "y"}),
]


def test_only_what_differs_is_told_and_names_and_labels_are_no_difference() -> None:
    found = compare(JOBS)
    assert found.fields == ["target.sparsity", "seed", "target.layers"]
    assert [entry.recipe["seed"] for entry in found.entries] == ["1", "2", "0"]
    assert found.entries[2].recipe == {"target.sparsity": "", "seed": "0", "target.layers": "12"}


def test_what_another_job_beats_is_not_on_the_front() -> None:
    entries = compare(JOBS).entries
    assert [entry.fastest_for_its_quality for entry in entries] == [True, False, True]
    assert [entry.smallest_for_its_quality for entry in entries] == [True, False, True]


@given(points=st.lists(st.tuples(coordinates, coordinates), max_size=8))
def test_the_front_is_what_nothing_beats(points: list[tuple[float | None, float | None]]) -> None:
    chosen = front(points)
    known = [(i, x, y) for i, (x, y) in enumerate(points) if x is not None and y is not None]
    for i, x, y in known:
        beaten = any(a <= x and b <= y and (a, b) != (x, y) for _, a, b in known)
        assert (i in chosen) is not beaten
    assert bool(chosen) == bool(known)


def test_a_job_without_a_result_is_a_row_without_measures() -> None:
    failed = JOB | {"id": "d", "state": "failed", "verdict": None, "result": None}
    entry = compare([JOBS[0], failed]).entries[1]
    assert (entry.state, entry.speedup, entry.seconds, entry.fastest_for_its_quality) == ("failed", None, None, False)
    assert compare([failed]).same_texts
    assert pareto.speed(compare([failed])) is None


def test_perplexities_on_different_texts_are_told_apart() -> None:
    other = job("e", 1.0, 1.0, 75)
    other["result"]["metrics"]["perplexity"] = {"dense": {"another text": 5.0}, "cut": {}, "pruned": {}}
    assert compare(JOBS).same_texts
    assert not compare([*JOBS, other]).same_texts


def test_both_fronts_are_drawn_with_their_numbers() -> None:
    for draw in (pareto.speed, pareto.size):
        plot = draw(compare(JOBS))
        assert plot is not None
        assert plot.picture.count("<circle") == 3
        assert "front" in plot.picture
        assert ">dense</text>" in plot.picture, "where they come from"
        assert plot.table is not None
        assert [row[-1] for row in plot.table.rows] == ["yes", "", "yes"]


def test_fields_are_named_by_their_path() -> None:
    assert flattened({"a": {"b": 0.5, "c": None, "d": [1, 2]}, "labels": {"k": "v"}}) == {"a.b": "0.5", "a.d": "1, 2"}


@pytest.mark.parametrize(
    ("stability", "expected"),
    [(None, None), (0.9, 0.9), ({"mean": 0.8, "piqa": 0.7}, 0.8), ({"mean": {"value": 0.6, "low": 0.5}}, 0.6)],
)
def test_the_mean_stability_is_found_in_every_form(stability: Any, expected: float | None) -> None:
    assert mean_stability({"stability": stability}) == expected
