import math
from typing import Any

import pytest

from app.core.gates import judge

METRICS: dict[str, Any] = {
    "perplexity": {"dense": {"a": 10.0, "b": 20.0}, "pruned": {"a": 11.0, "b": 26.0}},
    "speedup": 1.2,
    "parameters": {"dense": 100, "pruned": 75},
}


def test_a_job_without_gates_passes() -> None:
    assert judge({}, METRICS) == ("pass", [])
    assert judge({"min_speedup": None}, METRICS) == ("pass", [])


def test_the_worst_data_set_decides_about_perplexity() -> None:
    verdict, gates = judge({"max_perplexity_ratio": 1.2}, METRICS)
    assert verdict == "fail"
    assert gates == [{"name": "perplexity_ratio", "limit": 1.2, "value": 1.3, "passed": False}]


def test_perplexity_and_speed_have_intervals_and_a_count_has_none() -> None:
    between = {"perplexity_ratio": {"a": [1.0, 1.2], "b": [1.25, 1.35]}, "speedup": [1.1, 1.3]}
    limits = {"max_perplexity_ratio": 1.2, "min_speedup": 1.1, "max_parameters": 80}
    _, gates = judge(limits, METRICS | {"intervals": between})
    assert [gate.get("interval") for gate in gates] == [[1.25, 1.35], [1.1, 1.3], None], "of the worst data set"


@pytest.mark.parametrize(("limit", "verdict"), [(1.2, "pass"), (1.21, "fail")])
def test_a_value_at_its_limit_passes(limit: float, verdict: str) -> None:
    assert judge({"min_speedup": limit}, METRICS)[0] == verdict


def test_every_gate_is_judged_also_after_a_missed_one() -> None:
    _, gates = judge({"min_speedup": 2.0, "max_parameters": 80.0}, METRICS)
    assert [(gate["name"], gate["passed"]) for gate in gates] == [("speedup", False), ("parameters", True)]


def test_a_value_that_is_not_a_number_passes_no_gate() -> None:
    verdict, gates = judge({"min_speedup": 0.1}, METRICS | {"speedup": math.nan})
    assert verdict == "fail"
    assert gates[0]["value"] is None, "NaN is not JSON"


@pytest.mark.parametrize("side", ["dense", "pruned"])
def test_a_perplexity_that_is_no_number_passes_no_gate(side: str) -> None:
    perplexity = {**METRICS["perplexity"], side: {"a": 10.0, "b": None}}
    verdict, gates = judge({"max_perplexity_ratio": 100.0}, METRICS | {"perplexity": perplexity})
    assert verdict == "fail"
    assert gates[0]["value"] is None
    assert not gates[0]["passed"]


TASK_METRICS: dict[str, Any] = METRICS | {
    "stability": {"piqa": 0.9, "xsum": None, "mean": 0.9},
    "flip_rate": {"piqa": 0.05, "xsum": None, "mean": 0.05},
    "task_retained_accuracy": {"piqa": 0.97, "xsum": 0.6, "mean": 0.93},
    "intervals": {"stability": {"piqa": [0.85, 0.94], "mean": [0.86, 0.93]}},
}


def test_a_bar_on_the_tasks_is_held_against_their_mean_with_its_interval() -> None:
    gates = {"min_stability": 0.8, "min_accuracy_retained": 0.95, "max_flip_rate": 0.05}
    verdict, judged = judge(gates, TASK_METRICS)
    assert verdict == "fail"
    assert judged[0] == {"name": "accuracy_retained", "limit": 0.95, "value": 0.93, "passed": False}
    assert judged[1] == {
        "name": "stability", "limit": 0.8, "value": 0.9, "passed": True, "interval": [0.86, 0.93],
    }  # fmt: skip
    assert judged[2]["passed"], "a value at its limit"


def test_a_single_task_has_bars_of_its_own() -> None:
    verdict, judged = judge({"tasks": {"piqa": {"min_stability": 0.95, "max_flip_rate": None}}}, TASK_METRICS)
    assert verdict == "fail"
    assert [gate["name"] for gate in judged] == ["stability/piqa"]
    assert judged[0]["interval"] == [0.85, 0.94]


@pytest.mark.parametrize("metrics", [TASK_METRICS, METRICS])
def test_a_task_without_a_measure_passes_no_bar(metrics: dict[str, Any]) -> None:
    verdict, judged = judge({"tasks": {"xsum": {"min_stability": 0.1}}}, metrics)
    assert verdict == "fail"
    assert judged[0]["value"] is None


def test_the_answer_has_one_order_whatever_the_databases_is() -> None:
    gates = {"min_speedup": 0.1, "max_perplexity_ratio": 100.0, "max_parameters": 10**9}
    backwards = dict(reversed(gates.items()))
    assert judge(gates, METRICS) == judge(backwards, METRICS)
    assert [gate["name"] for gate in judge(backwards, METRICS)[1]] == ["perplexity_ratio", "speedup", "parameters"]
