"""Gates: the bars that a job's result must clear, and the verdict."""

import math
from collections.abc import Callable, Mapping
from typing import Any


def _worst_perplexity_ratio(metrics: Mapping[str, Any]) -> float:
    perplexity = metrics["perplexity"]
    pairs = [(perplexity["pruned"][name], dense) for name, dense in perplexity["dense"].items()]
    # A report writes a perplexity that is no number as null; one such text is the worst.
    if any(pruned is None or dense is None for pruned, dense in pairs):
        return math.nan
    return max(float(pruned) / float(dense) for pruned, dense in pairs)


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


_MEASURES: dict[str, tuple[str, bool, Callable[[Mapping[str, Any]], float]]] = {
    # request's name: (name in the answer, whether the limit is an upper bound, how it is read off the metrics)
    "max_perplexity_ratio": ("perplexity_ratio", True, _worst_perplexity_ratio),
    "min_speedup": ("speedup", False, lambda metrics: _number(metrics["speedup"])),
    "max_parameters": ("parameters", True, lambda metrics: _number(metrics["parameters"]["pruned"])),
}


def judge(gates: Mapping[str, float | None], metrics: Mapping[str, Any]) -> tuple[str, list[dict[str, Any]]]:
    """Hold the metrics against the gates.

    Args:
        gates: limits by their names in the request; None means no such gate.
        metrics: the report's metrics.

    Returns:
        The verdict ("pass" or "fail") and each gate as {"name", "limit", "value", "passed"}. The ratio of perplexities
        is that of the worst data set. A value that is not a number passes no gate.
    """
    judged = []
    for requested, limit in gates.items():
        if limit is None:
            continue
        name, upper, measure = _MEASURES[requested]
        value = measure(metrics)
        passed = math.isfinite(value) and (value <= limit if upper else value >= limit)
        judged.append(
            {"name": name, "limit": limit, "value": value if math.isfinite(value) else None, "passed": passed}
        )
    return ("pass" if all(gate["passed"] for gate in judged) else "fail"), judged
