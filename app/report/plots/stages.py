"""Where the time of the job went."""

from collections.abc import Mapping
from typing import Any

from app.jobs.states import STAGES
from app.report.quantities import percent, seconds
from app.report.svg import WIDTH, Plot, Scale, Table, picture, tag, words

LEFT, RIGHT, ROW = 84, WIDTH - 74, 22


def draw(report: Mapping[str, Any]) -> Plot | None:
    """A bar per stage, in order."""
    spent = report.get("stage_seconds") or {}
    total = sum(spent.values())
    if not total:
        return None
    named = sorted(spent, key=lambda stage: STAGES.index(stage) if stage in STAGES else len(STAGES))
    scale = Scale(0, max(spent.values()), 0, RIGHT - LEFT)
    parts = []
    for index, stage in enumerate(named):
        y, width = 2 + index * ROW, max(scale(spent[stage]), 1.0)
        hint = tag("title", f"{stage}: {seconds(spent[stage])}")
        parts += [
            words(LEFT - 8, y + 13, stage, anchor="end"),
            tag("rect", hint, x=LEFT, y=y, width=width, height=ROW - 6, rx=3, class_="fill pruned"),
            words(LEFT + width + 7, y + 13, seconds(spent[stage]), kind="value"),
        ]
    rows = [[stage, seconds(spent[stage]), percent(spent[stage] / total)] for stage in named]
    drawing = picture(
        "stages", "Seconds per stage", "; ".join(f"{row[0]} {row[1]}" for row in rows), len(named) * ROW + 6, *parts
    )
    caption = f"{seconds(total)} in all; the benchmark and the evaluation measure, they do not compress."
    return Plot("stages", "Where the time went", caption, drawing, Table(("stage", "time", "share"), rows))
