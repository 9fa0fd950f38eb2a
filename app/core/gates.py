"""Gates: the bars that a job's result must clear, and the verdict."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

MEAN = "mean"
"""What the metrics call the average over tasks, beside the tasks' own names."""


@dataclass(frozen=True)
class _Measure:
    """What a gate is about: its name in the answer, whether the limit is an upper bound, how it is read off."""

    name: str
    upper: bool
    value: Callable[[Mapping[str, Any]], float]
    interval: Callable[[Mapping[str, Any]], list[float] | None] = lambda _: None


def _worst_text(metrics: Mapping[str, Any]) -> tuple[float, str]:
    """The largest ratio of perplexities, and the data set that has it."""
    perplexity = metrics["perplexity"]
    # A report writes a perplexity that is no number as null; one such text is the worst.
    pairs = {name: (perplexity["pruned"][name], dense) for name, dense in perplexity["dense"].items()}
    ratios = [
        (math.inf if pruned is None or dense is None else float(pruned) / float(dense), name)
        for name, (pruned, dense) in pairs.items()
    ]
    return max(ratios)


def _interval_of_worst_text(metrics: Mapping[str, Any]) -> list[float] | None:
    found: list[float] | None = metrics.get("intervals", {}).get("perplexity_ratio", {}).get(_worst_text(metrics)[1])
    return found


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _of_task(name: str, key: str, task: str, *, upper: bool) -> _Measure:
    """A measure that the metrics hold under `key` for each task and for the mean."""
    return _Measure(
        name if task == MEAN else f"{name}/{task}",
        upper,
        lambda metrics: _number(metrics.get(key, {}).get(task)),
        lambda metrics: metrics.get("intervals", {}).get(key, {}).get(task),
    )


_MEASURES = {
    # by the names of the request
    "max_perplexity_ratio": _Measure(
        "perplexity_ratio", True, lambda metrics: _worst_text(metrics)[0], _interval_of_worst_text
    ),
    "min_speedup": _Measure(
        "speedup",
        False,
        lambda metrics: _number(metrics["speedup"]),
        lambda metrics: metrics.get("intervals", {}).get("speedup"),
    ),
    "max_parameters": _Measure("parameters", True, lambda metrics: _number(metrics["parameters"]["pruned"])),
}
_TASK_MEASURES = {
    # by the names of the request: name in the answer, key in the metrics, whether the limit is an upper bound
    "min_accuracy_retained": ("accuracy_retained", "task_retained_accuracy", False),
    "min_stability": ("stability", "stability", False),
    "max_flip_rate": ("flip_rate", "flip_rate", True),
}


def judge(gates: Mapping[str, Any], metrics: Mapping[str, Any]) -> tuple[str, list[dict[str, Any]]]:
    """Hold the metrics against the gates.

    Args:
        gates: limits by their names in the request, those of single tasks under `tasks`; None means no such gate.
        metrics: the report's metrics.

    Returns:
        The verdict ("pass" or "fail") and each gate as {"name", "limit", "value", "passed"}, with the 95 % "interval"
        [low, high] where one is known (parameters are counted, and have none). The value decides, not the interval. The
        ratio of perplexities is that of the worst data set. A value that is not a number passes no gate.
    """
    judged = []
    for measure, limit in _wanted(gates):
        value = measure.value(metrics)
        passed = math.isfinite(value) and (value <= limit if measure.upper else value >= limit)
        gate = {
            "name": measure.name,
            "limit": limit,
            "value": value if math.isfinite(value) else None,
            "passed": passed,
        }
        interval = measure.interval(metrics)
        judged.append(gate if interval is None else gate | {"interval": interval})
    return ("pass" if all(gate["passed"] for gate in judged) else "fail"), judged


def _wanted(gates: Mapping[str, Any]) -> Iterator[tuple[_Measure, float]]:
    # In an order of our own: a database that keeps JSON in binary form has an order of its own for keys.
    for name in (*_MEASURES, *_TASK_MEASURES):
        if (limit := gates.get(name)) is not None:
            yield _MEASURES[name] if name in _MEASURES else _task_measure(name, MEAN), limit
    for task, limits in sorted((gates.get("tasks") or {}).items()):
        for name in _TASK_MEASURES:
            if (limit := limits.get(name)) is not None:
                yield _task_measure(name, task), limit


def _task_measure(requested: str, task: str) -> _Measure:
    name, key, upper = _TASK_MEASURES[requested]
    return _of_task(name, key, task, upper=upper)
