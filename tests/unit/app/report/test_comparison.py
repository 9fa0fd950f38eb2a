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


def of(name: str, kind: str, **replacement: Any) -> dict[str, Any]:
    trained = {"loss": "mse", "epochs": 4, "divergence": "forward", "second_epochs": 1, "layers": 1}
    return job(name, 1.0, 1.1, 75, replacement={"kind": kind, **trained, **replacement})


@pytest.mark.parametrize(
    ("jobs", "fields"),
    [
        ([of("a", "none", loss="kd", epochs=9), of("b", "none")], []),
        ([of("a", "none", loss="kd"), of("b", "linear_merged", epochs=9)], ["replacement.kind"]),
        ([of("a", "none", epochs=9), of("b", "ffn", epochs=8)], ["replacement.kind"]),
        ([of("a", "ffn", epochs=9), of("b", "ffn", layers=2)], ["replacement.epochs"]),
        ([of("a", "ffn", divergence="reverse"), of("b", "ffn", second_epochs=3)], []),
        ([of("a", "ffn", loss="mse+kd"), of("b", "ffn")], ["replacement.loss"]),
        ([of("a", "layer", layers=2), of("b", "layer"), of("c", "none")], ["replacement.kind", "replacement.layers"]),
    ],
)
def test_what_a_kind_or_a_loss_makes_no_use_of_is_no_difference(jobs: list[dict[str, Any]], fields: list[str]) -> None:
    assert compare(jobs).fields == fields


def test_the_data_of_a_task_differ_only_between_jobs_that_ask_it() -> None:
    def asks(name: str, **data: str) -> dict[str, Any]:
        return job(name, 1.0, 1.1, 75, evaluation={"tasks": list(data), "task_data": data})

    assert compare([asks("a"), asks("b", piqa="ds-1")]).fields == ["evaluation.tasks"]
    assert compare([asks("a", piqa="ds-2"), asks("b", piqa="ds-1")]).fields == ["evaluation.task_data.piqa"]


def test_dots_are_called_as_in_the_table_and_by_what_was_put_in_or_the_users_labels() -> None:
    jobs = [of("a" * 32, "layer", epochs=1), of("b" * 32, "linear_residual"), of("c" * 32, "none")]
    assert list(pareto.labels(compare(jobs)).values()) == [
        "aaaaaaaa layer",
        "bbbbbbbb linear_residual",
        "cccccccc none",
    ]
    named = [each | {"spec": each["spec"] | {"labels": {"try": each["id"][:2], "team": "x"}}} for each in jobs]
    assert list(pareto.labels(compare(named)).values()) == ["aaaaaaaa aa", "bbbbbbbb bb", "cccccccc cc"]


def test_the_line_is_told_of_only_where_one_is_drawn() -> None:
    for jobs, drawn in ((JOBS, True), (JOBS[:2], False)):
        for draw in (pareto.speed, pareto.size):
            plot = draw(compare(jobs))
            assert plot is not None
            assert ("The line joins" in plot.caption) == ('cut front"' in plot.picture) == drawn


def test_an_interval_of_the_speed_is_drawn_where_there_is_one() -> None:
    known = job("a", 1.0, 1.1, 75, seed=3)
    known["result"]["metrics"]["intervals"] = {"speedup": [0.9, 1.2]}
    plot = pareto.speed(compare([known, JOBS[1]]))
    assert plot is not None
    assert plot.picture.count('class="interval') == 1
    assert "too noisy to tell" in plot.caption
    assert plot.table is not None
    assert [row[2] for row in plot.table.rows] == ["×0.900 to ×1.20", ""]


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
