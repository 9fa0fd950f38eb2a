"""Accuracy per task, dense and pruned, with intervals."""

from collections.abc import Mapping
from typing import Any

from app.report.plots.tasks import LEFT, RIGHT, Dot, of_tasks, rows
from app.report.quantities import percent
from app.report.svg import Plot, Scale, Table, picture

_DEVIATIONS = 1.96  # of a normal distribution: the middle 95 %
VARIANTS = ("dense", "pruned")


def draw(report: Mapping[str, Any]) -> Plot | None:
    """Two dots per task, each with its 95 % interval."""
    found = [(name, [_dot(name, task, variant) for variant in VARIANTS]) for name, task in of_tasks(report).items()]
    ends = [
        end for _, dots in found for _, value, low, high, _ in dots for end in (value, low, high) if end is not None
    ]
    if not ends:
        return None
    low, high = max(0.0, min(ends) - 0.03), min(1.0, max(ends) + 0.03)
    scale = Scale(low, high, LEFT, RIGHT)
    parts, height = rows([("dense", "dense"), ("pruned", "pruned")], found, scale, "{:.0%}")
    table = [_row(name, task) for name, task in of_tasks(report).items()]
    said = "; ".join(f"{row[0]}: dense {row[2]}, pruned {row[3]}" for row in table)
    drawing = picture("accuracy", "Accuracy per task", said, height, *parts)
    caption = "Share of right answers, or the mean grade (ROUGE); whiskers are 95 % intervals from the standard error."
    head = ("task", "questions", "dense", "pruned", "retained")
    return Plot("accuracy", "Accuracy", caption, drawing, Table(head, table))


def _dot(name: str, task: Mapping[str, Any], variant: str) -> Dot:
    value = task["accuracy"].get(variant)
    error = (task["accuracy"].get("stderr") or {}).get(variant)
    hint = f"{name}, {variant}: {percent(value)}"
    if value is None or error is None:
        return variant, value, None, None, hint
    reach = _DEVIATIONS * error
    return variant, value, max(0.0, value - reach), min(1.0, value + reach), f"{hint} ± {reach * 100:.1f} %"


def _row(name: str, task: Mapping[str, Any]) -> list[str]:
    dense, pruned = (task["accuracy"].get(variant) for variant in VARIANTS)
    retained = percent(pruned / dense) if dense and pruned is not None else ""
    return [name, f"{task['questions']:,}", percent(dense), percent(pruned), retained]
