"""Flips against confidence: where the dense model was sure, its answers should stay."""

from collections.abc import Mapping
from typing import Any

from app.report.plots.tasks import LEFT, RIGHT, Dot, of_tasks, rows
from app.report.quantities import digits, percent
from app.report.svg import Plot, Scale, Table, picture


def draw(report: Mapping[str, Any]) -> Plot | None:
    """Per task the share of answers that flipped, among all questions and among those the dense model was sure of."""
    tasks = {name: task for name, task in of_tasks(report).items() if task.get("flips")}
    found = [(name, _dots(name, task)) for name, task in tasks.items()]
    ends = [end for _, dots in found for _, value, _, high, _ in dots for end in (value, high) if end is not None]
    if not ends:
        return None
    scale = Scale(0, max(max(ends) * 1.08, 0.02), LEFT, RIGHT)
    parts, height = rows([("cut", "all questions"), ("pruned", "the confident half")], found, scale, "{:.0%}")
    table = [_row(name, task) for name, task in tasks.items()]
    drawing = picture(
        "flips", "Flipped answers", "; ".join(f"{row[0]}: {row[3]} of all flipped" for row in table), height, *parts
    )
    caption = (
        "Share of questions of which the verdict changed, right to wrong or back. Flips among the half that the dense "
        "model was most confident about are the ones that users notice."
    )
    head = ("task", "right → wrong", "wrong → right", "flipped", "of the confident half", "KL (nats)")
    return Plot("flips", "Flipped answers", caption, drawing, Table(head, table))


def rate(task: Mapping[str, Any]) -> tuple[float | None, float | None, float | None]:
    """The share of all questions that flipped, with its interval where one is known."""
    flips = task["flips"]
    if found := task.get("flip_rate") or flips.get("rate"):
        return found.get("value"), found.get("low"), found.get("high")
    return (flips["right_to_wrong"] + flips["wrong_to_right"]) / task["questions"], None, None


def _dots(name: str, task: Mapping[str, Any]) -> list[Dot]:
    value, low, high = rate(task)
    confident = task["flips"].get("confident_flipped")
    return [
        ("cut", value, low, high, f"{name}: {percent(value)} of all questions flipped"),
        ("pruned", confident, None, None, f"{name}: {percent(confident)} of the confident half flipped"),
    ]


def _row(name: str, task: Mapping[str, Any]) -> list[str]:
    flips = task["flips"]
    return [
        name,
        f"{flips.get('right_to_wrong', 0):,}",
        f"{flips.get('wrong_to_right', 0):,}",
        percent(rate(task)[0]),
        percent(flips.get("confident_flipped")),
        digits(task.get("kl"), ""),
    ]
