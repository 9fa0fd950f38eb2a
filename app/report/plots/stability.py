"""Stability per task with its interval, beside the share of agreeing answers among the confident ones."""

from collections.abc import Mapping
from typing import Any

from app.report.plots.tasks import LEFT, RIGHT, of_tasks, rows
from app.report.quantities import digits
from app.report.svg import Plot, Scale, Table, picture


def draw(report: Mapping[str, Any]) -> Plot | None:
    """A dot with its bootstrap interval per task."""
    tasks = {name: found for name, task in of_tasks(report).items() if (found := task.get("stability"))}
    known = [value for found in tasks.values() for end in ("value", "low") if (value := found.get(end)) is not None]
    if not known:
        return None
    scale = Scale(max(0.0, min(known) - 0.05), 1.0, LEFT, RIGHT)
    found = [
        (name, [("pruned", each.get("value"), each.get("low"), each.get("high"), f"{name}: {_said(each)}")])
        for name, each in tasks.items()
    ]
    parts, height = rows([("pruned", "stability")], found, scale, "{:.2f}")
    table = [[name, *(digits(each.get(end)) for end in ("value", "low", "high"))] for name, each in tasks.items()]
    said = "; ".join(f"{row[0]}: {row[1]}" for row in table)
    drawing = picture("stability", "Stability per task", said, height, *parts)
    caption = (
        "Share of questions on which both models are right or both are wrong, weighted by how confident the dense "
        "model was: 1 is the same behaviour. Whiskers are 95 % bootstrap intervals."
    )
    return Plot("stability", "Stability", caption, drawing, Table(("task", "stability", "low", "high"), table))


def _said(each: Mapping[str, Any]) -> str:
    return f"{digits(each.get('value'))} ({digits(each.get('low'))} to {digits(each.get('high'))})"
