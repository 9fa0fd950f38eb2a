"""How much each single layer changes the hidden state."""

from collections.abc import Mapping
from statistics import quantiles
from typing import Any

from markupsafe import Markup

from app.core.windows import runs
from app.report.plots.windows import named, scored
from app.report.quantities import digits
from app.report.svg import WIDTH, Plot, Scale, Table, legend, picture, tag, words, y_axis

LEFT, TOP, RIGHT, BOTTOM = 46, 46, WIDTH - 8, 230


_TITLES = {"cosine": "Similarity", "dot": "Similarity", "angular": "Distance", "euclidean": "Distance"}
_CALLED = {"angular": "angular distance", "euclidean": "euclidean distance", "dot": "inner product"}
_DOT = 4.5  # radius
_FENCES = 3.0  # Tukey's outer fences: quartile ranges beyond the quartile


def draw(report: Mapping[str, Any]) -> Plot | None:
    """A mark per layer, the score of the window that holds it alone; those that were cut stand out.

    Distances are bars, which start at zero. Similarities are nearly the same for all layers: they are dots on an axis
    that shows where they differ, and the caption says that it is cut.
    """
    scores = report.get("scores")
    if not scores:
        return None
    metric, higher, cells = scored(scores)
    values = {start: value for (start, size), value in cells.items() if size == 1}
    if len(values) < 2:
        return None
    called = _CALLED.get(metric, metric)
    removed = set(report.get("removed_layers") or [])
    scale = _scale(metric, list(values.values()))
    as_bars = _is_distance(metric)
    layers = scores["layers"]
    step = (RIGHT - LEFT) / layers
    marks = [
        (_bar if as_bars else _dot if value >= scale.low else _arrow)(
            LEFT + (layer + 0.5) * step,
            scale(value),
            step,
            tag("title", f"layer {layer}: {digits(value)}"),
            "cut" if layer in removed else "pruned",
        )
        for layer, value in sorted(values.items())
    ]
    below = ", ".join(f"{layer} ({digits(value)})" for layer, value in sorted(values.items()) if value < scale.low)
    every = next(every for every in (1, 2, 4, 5, 10, 20, 50, 100, 1000) if every * step >= 26 or every == 1000)
    labels = [
        words(LEFT + (layer + 0.5) * step, BOTTOM + 16, layer, anchor="middle") for layer in range(0, layers, every)
    ]
    labels.append(words((LEFT + RIGHT) / 2, BOTTOM + 36, "layer", anchor="middle", kind="axis"))
    keys = legend((("pruned", "kept"), ("cut", "cut")), LEFT, 14)
    if below:
        keys += words(RIGHT, 14, f"far below: {below}", anchor="end")
    cut = ", ".join(named(run) for run in runs(sorted(removed))) or "none"
    most = (max if higher else min)(values, key=lambda layer: values[layer])
    drawing = picture(
        "similarity",
        "Score of each single layer",
        f"{called.capitalize()} between the input and the output of each layer; layer {most} changes it least.",
        BOTTOM + 48,
        y_axis(scale, LEFT, RIGHT, count=4),
        keys,
        *marks,
        *labels,
    )
    direction = "higher" if higher else "lower"
    caption = (
        f"{called.capitalize()} of the hidden state before and after each layer; {direction} means that the layer "
        f"changes it less.{'' if as_bars else f' The axis starts at {digits(scale.low)}, not at 0.'} Cut: {cut}."
    )
    rows = [
        [str(layer), digits(value), "cut" if layer in removed else "kept"] for layer, value in sorted(values.items())
    ]
    title = f"{_TITLES.get(metric, 'Score')} by layer"
    return Plot("similarity", title, caption, drawing, Table(("layer", metric, ""), rows))


def _is_distance(metric: str) -> bool:
    return _TITLES.get(metric) == "Distance"


def _scale(metric: str, values: list[float]) -> Scale:
    """From zero for distances; for similarities the range in which they differ."""
    low, high = _range(values)
    if _is_distance(metric):
        return Scale(0, max(values) * 1.06 or 1.0, BOTTOM, TOP)
    margin = (high - low) * 0.12 or 1.0
    return Scale(low - margin, min(1.0, high + margin) if metric == "cosine" else high + margin, BOTTOM, TOP)


def _bar(middle: float, top: float, step: float, hint: Markup, kind: str) -> Markup:
    width = max(1.0, min(step - 2, step * 0.78))
    return tag(
        "rect", hint, x=middle - width / 2, y=top, width=width, height=BOTTOM - top, rx=min(2.0, width / 3),
        class_=f"fill {kind}",
    )  # fmt: skip


def _dot(middle: float, y: float, step: float, hint: Markup, kind: str) -> Markup:
    return tag("circle", hint, cx=middle, cy=y, r=min(_DOT, max(1.5, step * 0.45)), class_=f"dot {kind}")


def _arrow(middle: float, y: float, _step: float, hint: Markup, kind: str) -> Markup:
    """What is farther below than the picture goes."""
    path = f"M{middle - _DOT:.1f} {y - 2 * _DOT:.1f}h{2 * _DOT:.1f}l{-_DOT:.1f} {1.6 * _DOT:.1f}z"
    return tag("path", hint, d=path, class_=f"fill {kind}")


def _range(values: list[float]) -> tuple[float, float]:
    """The range to show: without the few layers that stand so far below that the others would look alike."""
    lower, _, upper = quantiles(values, n=4, method="inclusive")
    fence = lower - _FENCES * (upper - lower)
    return min(value for value in values if value >= fence), max(values)
