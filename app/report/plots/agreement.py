"""Agreement against confidence: the more certain the dense model was, the more its answers should stay."""

from collections.abc import Mapping
from typing import Any, Final

from app.report.plots.tasks import of_tasks
from app.report.quantities import digits, percent
from app.report.svg import WIDTH, Plot, Scale, Table, legend, line, picture, shortened, tag, words, y_axis

LEFT, TOP, RIGHT, HEIGHT = 52, 30, WIDTH - 14, 190
_KINDS: Final = ("pruned", "cut", "rival-0", "rival-1", "rival-2", "rival-3")  # of the first tasks; others share one
_PER_ROW: Final = 2


def draw(report: Mapping[str, Any]) -> Plot | None:
    """A line per task through groups of equally many questions, from those the dense model was least sure of."""
    found = {name: list(task.get("by_confidence") or ()) for name, task in of_tasks(report).items()}
    tasks = {name: groups for name, groups in found.items() if len(groups) > 1}
    if not tasks:
        return None
    kinds = {name: _KINDS[index] if index < len(_KINDS) else "soft" for index, name in enumerate(tasks)}
    keys = [(kind, shortened(name, 185)) for name, kind in kinds.items() if kind != "soft"]
    keys += [("soft", "others")] if len(tasks) > len(_KINDS) else []
    rows = [keys[index : index + _PER_ROW] for index in range(0, len(keys), _PER_ROW)]
    top = TOP + 18 * len(rows)
    bottom = top + HEIGHT
    least = min(group["agreement"] for groups in tasks.values() for group in groups)
    up = Scale(max(0.0, least - 0.05), 1.0, bottom, top)
    across = Scale(0, 1, LEFT + 8, RIGHT - 8)
    parts = [legend(row, 0, 14 + 18 * index) for index, row in enumerate(rows)]
    parts += [words(0, top - 14, "both right or both wrong", kind="axis"), y_axis(up, LEFT, RIGHT, form="{:.0%}")]
    parts += [
        words(across(0), bottom + 16, "least sure"),
        words(across(1), bottom + 16, "most sure", anchor="end"),
        words((LEFT + RIGHT) / 2, bottom + 36, "confidence of the dense model", anchor="middle", kind="axis"),
    ]
    for name, groups in tasks.items():
        points = [
            (across(place), up(group["agreement"])) for place, group in zip(_places(len(groups)), groups, strict=True)
        ]
        parts.append(line(points, kinds[name]))
        for (x, y), group in zip(points, groups, strict=True):
            hint = f"{name}: {percent(group['agreement'])} of {group['questions']:,} questions agree"
            parts.append(tag("circle", tag("title", hint), cx=x, cy=y, r=4, class_=f"dot {kinds[name]}"))
    said = "; ".join(
        f"{name}: {percent(unsure['agreement'])} where least sure, {percent(sure['agreement'])} where most sure"
        for name, (unsure, *_, sure) in tasks.items()
    )
    drawing = picture("agreement", "Agreement against confidence", said, bottom + 46, *parts)
    caption = (
        "Questions of each task in groups of equal size, by how far the dense model's options lie apart; on those that "
        "it is sure of the pruned one should give the same verdict."
    )
    table = Table(
        ("task", "confidence (nats)", "questions", "agree"),
        [
            [name, digits(group["confidence"]), f"{group['questions']:,}", percent(group["agreement"])]
            for name, groups in tasks.items()
            for group in groups
        ],
    )
    return Plot("agreement", "Stability against confidence", caption, drawing, table)


def _places(count: int) -> list[float]:
    """Evenly from 0 to 1: the groups are of one size."""
    return [index / (count - 1) for index in range(count)]
