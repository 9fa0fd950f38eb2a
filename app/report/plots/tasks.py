"""What the plots of tasks share: rows with dots and their intervals, one task below the other."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from markupsafe import Markup

from app.report.svg import WIDTH, Scale, legend, shortened, tag, words

LEFT, RIGHT, ROW, TOP = 20, WIDTH - 20, 46, 36

Dot = tuple[str, float | None, float | None, float | None, str]
"""Class of the colour, value, lower and upper end (None where unknown), and a hint."""


def of_tasks(report: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The tasks of a report; none where it has none."""
    return dict((report.get("evaluation") or {}).get("tasks") or {})


def rows(
    keys: Sequence[tuple[str, str]], found: Iterable[tuple[str, Sequence[Dot]]], scale: Scale, form: str
) -> tuple[list[Markup], float]:
    """The drawing of (task, dots) rows, with its height."""
    listed = list(found)
    bottom = TOP + ROW * len(listed)
    parts = [legend(keys, 0, 14)]
    for value in scale.ticks():
        x = scale(value)
        parts += [
            tag("line", x1=x, x2=x, y1=TOP + 18, y2=bottom, class_="grid"),
            words(x, bottom + 16, form.format(value), anchor="middle"),
        ]
    for index, (task, dots) in enumerate(listed):
        middle = TOP + ROW * index + 29
        parts.append(words(0, middle - 14, shortened(task, WIDTH)))
        apart = 6.0 if len(dots) > 1 else 0.0
        for place, dot in enumerate(dots):
            parts.append(_dot(dot, scale, middle + apart * (2 * place - len(dots) + 1) / 2))
    return parts, bottom + 30


def _dot(dot: Dot, scale: Scale, y: float) -> Markup:
    kind, value, low, high, hint = dot
    if value is None:
        return Markup("")
    parts = []
    if low is not None and high is not None:
        parts.append(tag("line", x1=scale(low), x2=scale(high), y1=y, y2=y, class_=f"interval {kind}"))
    parts.append(tag("circle", tag("title", hint), cx=scale(value), cy=y, r=5, class_=f"dot {kind}"))
    return Markup("").join(parts)
