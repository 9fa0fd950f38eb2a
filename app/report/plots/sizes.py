"""Parameters, checkpoint, memory and arithmetic, as shares of the dense model's."""

from collections.abc import Mapping
from typing import Any

from app.report.plots.settings import colours
from app.report.quantities import UNKNOWN, change, count, size
from app.report.svg import WIDTH, Plot, Scale, Table, legend, picture, shortened, tag, words

LEFT, RIGHT, ROW = 0, WIDTH - 150, 17


def draw(report: Mapping[str, Any]) -> Plot | None:
    """A group of bars per measure; the dense model's is the full length."""
    benchmark = report.get("benchmark")
    if not benchmark or "dense" not in benchmark["models"]:
        return None
    models = ["dense", *(name for name in benchmark["models"] if name != "dense")]
    kinds = colours(models)
    measures = [each for each in _measures(benchmark) if each[1].get("dense")]
    keys = [(kinds[name], shortened(name, 130)) for name in models]
    parts = [legend(keys[index : index + 3], 0, 14 + 18 * (index // 3)) for index in range(0, len(keys), 3)]
    rows, y = [], 16.0 + 18 * len(parts)
    largest = max(value / values["dense"] for _, values, _ in measures for value in values.values() if value)
    scale = Scale(0, max(1.0, largest), LEFT, RIGHT)
    for title, values, form in measures:
        parts.append(words(0, y + 12, title, kind="axis"))
        y += 20
        cells = []
        for name in models:
            value = values.get(name)
            share = value / values["dense"] if value else None
            if value and share:
                said = form(value) + (f" · {change(share)}" if name != "dense" else "")
                width = scale(share) - LEFT
                hint = tag("title", f"{title}, {name}: {said}")
                parts += [
                    tag("rect", hint, x=LEFT, y=y, width=max(width, 1.0), height=ROW - 4, rx=3,
                        class_=f"fill {kinds[name]}"),
                    words(LEFT + width + 7, y + 11, said, kind="value"),
                ]  # fmt: skip
                y += ROW
            cells.append(form(value) if value else UNKNOWN)
        y += 10
        rows.append([title, *cells])
    said = "; ".join(
        f"{row[0]}: " + ", ".join(f"{n} {v}" for n, v in zip(models, row[1:], strict=True)) for row in rows
    )
    drawing = picture("sizes", "Sizes of the models", said, y - 4, *parts)
    caption = "Peak memory: the weights and the most that generating took beside them, at the first setting."
    return Plot("sizes", "Memory, bytes, parameters", caption, drawing, Table(("", *models), rows))


def _measures(benchmark: Mapping[str, Any]) -> list[tuple[str, dict[str, Any], Any]]:
    models = benchmark["models"]
    first = benchmark["settings"][0]["models"] if benchmark["settings"] else {}
    return [
        ("parameters", {name: each.get("parameters") for name, each in models.items()}, count),
        ("checkpoint", {name: each.get("checkpoint_bytes") for name, each in models.items()}, size),
        ("peak memory", {name: each.get("peak_memory_bytes") for name, each in first.items()}, size),
        ("FLOPs per token", {name: each.get("flops_per_token") for name, each in models.items()}, count),
    ]
