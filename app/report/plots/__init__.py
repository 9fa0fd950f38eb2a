"""The plots of a report, one file each: `draw(report)` gives the plot, or nothing where its data are not there."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from app.report.plots import (
    accuracy,
    agreement,
    flips,
    heatmap,
    latency,
    losses,
    perplexity,
    prompts,
    similarity,
    sizes,
    speed,
    stability,
)
from app.report.svg import Plot

Draw = Callable[[Mapping[str, Any]], Plot | None]

SECTIONS: Final[tuple[tuple[str, tuple[Draw, ...]], ...]] = (
    ("Where it was cut, and what was learned", (heatmap.draw, similarity.draw, losses.draw)),
    ("What is left of the quality", (perplexity.draw, accuracy.draw, stability.draw, agreement.draw, flips.draw)),
    ("Speed and size", (speed.draw, prompts.draw, latency.draw, sizes.draw)),
)
"""In reading order, under their headings."""


def drawn(report: Mapping[str, Any]) -> list[tuple[str, list[Plot]]]:
    """Every plot that the report has data for, under the headings that have any."""
    found = [(heading, [plot for draw in draws if (plot := draw(report)) is not None]) for heading, draws in SECTIONS]
    return [(heading, plots) for heading, plots in found if plots]
