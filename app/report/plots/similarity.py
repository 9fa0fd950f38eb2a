"""How much each single layer changes the hidden state."""

from collections.abc import Mapping
from statistics import quantiles
from typing import Any

from app.core.windows import runs
from app.report.plots.windows import named, scored
from app.report.quantities import digits
from app.report.svg import WIDTH, Plot, Scale, Table, legend, picture, tag, words, y_axis

LEFT, TOP, RIGHT, BOTTOM = 46, 46, WIDTH - 8, 230


_TITLES = {"cosine": "Similarity", "dot": "Similarity", "angular": "Distance", "euclidean": "Distance"}
_STUB = 5.0  # height of a bar that ends below the picture
_FENCES = 3.0  # Tukey's outer fences: quartile ranges beyond the quartile


def draw(report: Mapping[str, Any]) -> Plot | None:
    """A bar per layer, the score of the window that holds it alone; those that were cut stand out."""
    scores = report.get("scores")
    if not scores:
        return None
    metric, higher, cells = scored(scores)
    values = {start: value for (start, size), value in cells.items() if size == 1}
    if len(values) < 2:
        return None
    removed = set(report.get("removed_layers") or [])
    low, high = _range(list(values.values()))
    margin = (high - low) * 0.12 or 1.0
    scale = Scale(low - margin, min(1.0, high + margin) if metric == "cosine" else high + margin, BOTTOM, TOP)
    layers = scores["layers"]
    step = (RIGHT - LEFT) / layers
    width = max(1.0, min(step - 2, step * 0.78))
    bars = [
        tag(
            "rect",
            tag("title", f"layer {layer}: {digits(value)}"),
            x=LEFT + layer * step + (step - width) / 2,
            y=min(scale(value), BOTTOM - _STUB),
            width=width,
            height=max(_STUB, BOTTOM - scale(value)),
            rx=min(2.0, width / 3),
            class_="fill cut" if layer in removed else "fill pruned",
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
        f"Bars of {metric} between the input and the output of each layer; layer {most} changes it least.",
        BOTTOM + 48,
        y_axis(scale, LEFT, RIGHT, count=4),
        keys,
        *bars,
        *labels,
    )
    direction = "higher" if higher else "lower"
    caption = (
        f"{metric.capitalize()} of the hidden state before and after each layer; {direction} means that the layer "
        f"changes it less. Cut: {cut}."
    )
    rows = [
        [str(layer), digits(value), "cut" if layer in removed else "kept"] for layer, value in sorted(values.items())
    ]
    title = f"{_TITLES.get(metric, 'Score')} by layer"
    return Plot("similarity", title, caption, drawing, Table(("layer", metric, ""), rows))


def _range(values: list[float]) -> tuple[float, float]:
    """The range to show: without the few layers that stand so far below that the others would look alike."""
    lower, _, upper = quantiles(values, n=4, method="inclusive")
    fence = lower - _FENCES * (upper - lower)
    return min(value for value in values if value >= fence), max(values)
