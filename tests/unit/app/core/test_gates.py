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
