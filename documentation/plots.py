"""The plots of the explanation: drawn by what draws a report's, from one measured report and a measured table."""

import json
import re
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

from markupsafe import escape

from app.report.page import PLOT_STYLE
from app.report.plots import heatmap, losses, perplexity, similarity, sizes
from app.report.quantities import ratio
from app.report.svg import WIDTH, Plot, Scale, legend, line, picture, tag, words, x_axis, y_axis
from app.report.versions import upgraded
from documentation.source import ROOT

_REPORT: Final = Path(__file__).parent / "measured" / "report.json"
"""Of a job on the bundled model; `measured/README.md` says how it was made."""

_DRAWN: Final[Mapping[str, Callable[[Mapping[str, Any]], Plot | None]]] = {
    "heatmap": heatmap.draw,
    "similarity": similarity.draw,
    "losses": losses.draw,
    "perplexity": perplexity.draw,
    "sizes": sizes.draw,
}

_VARIABLES: Final = """
  --ink: var(--md-default-fg-color); --soft: var(--md-default-fg-color--light);
  --line: var(--md-default-fg-color--lightest); --card: var(--md-default-bg-color);
"""

_KINDS: Final = ("cut", "rival-0", "rival-1", "rival-2", "dense", "pruned")
"""A colour for each row of the table of kinds."""

LEFT, TOP, RIGHT, BOTTOM = 46, 66, WIDTH - 12, 300


def style() -> str:
    """The report's style of plots, for figures of class `plot` alone."""
    return f".plot {{{_VARIABLES}{PLOT_STYLE.replace(':root', '&')}}}\n"


def figure(name: str) -> str:
    """A plot as it stands in a page.

    Raises:
        KeyError: there is no plot of this name.
        ValueError: the measured report has nothing for it to show.
    """
    plot = kinds() if name == "kinds" else _DRAWN[name](_report())
    if plot is None:
        raise ValueError(f"{_REPORT} has nothing for the plot {name}")
    caption = escape(plot.caption)
    return f'<figure class="plot">\n{plot.picture}\n<figcaption>{caption}</figcaption>\n</figure>'


@cache
def _report() -> dict[str, Any]:
    return upgraded(json.loads(_REPORT.read_text(encoding="utf-8")))


def kinds() -> Plot:
    """Perplexity over the dense model's against the share removed, a line for each kind of replacement.

    From the table in `benchmarks/README.md`, which `python -m benchmarks.quality` measures.
    """
    shares, measured = _table_of_kinds()
    values = [value for row in measured.values() for value in row]
    across = Scale(shares[0] - 2, shares[-1] + 2, LEFT, RIGHT)
    up = Scale(1.0, max(values) * 1.04, BOTTOM, TOP)
    colours = dict(zip(measured, _KINDS, strict=True))
    parts = [y_axis(up, LEFT, RIGHT, form="{:g}"), x_axis(across, BOTTOM, "% of the parameters removed", shares)]
    for kind, row in measured.items():
        points = [(across(share), up(value)) for share, value in zip(shares, row, strict=True)]
        parts.append(line(points, colours[kind]))
        for (x, y), value in zip(points, row, strict=True):
            hint = tag("title", f"{kind}: {ratio(value)}")
            parts.append(tag("circle", hint, cx=x, cy=y, r=4, class_=f"dot {colours[kind]}"))
    names = [(colours[kind], kind) for kind in measured]
    parts += [legend(names[first : first + 3], 0, 14 + 18 * (first // 3)) for first in range(0, len(names), 3)]
    parts.append(words(0, TOP - 14, "perplexity, of the dense model's", kind="axis"))
    said = "; ".join(f"{kind}: {', '.join(map(ratio, row))}" for kind, row in measured.items())
    drawing = picture("kinds", "Quality by replacement", said, BOTTOM + 44, *parts)
    caption = (
        "Test perplexity of the bundled model over the dense one's after 1,000 training sequences, by replacement "
        "(benchmarks/README.md)."
    )
    return Plot("kinds", "Quality by replacement", caption, drawing)


def _table_of_kinds() -> tuple[list[float], dict[str, list[float]]]:
    """The shares in percent, and each plain kind's perplexity ratios at them."""
    text = (ROOT / "benchmarks/README.md").read_text(encoding="utf-8")
    found = re.search(r"^\| replacement \|.*\n\|[-| ]+\n((?:\|.*\n)+)", text, flags=re.MULTILINE)
    if found is None:
        raise ValueError("benchmarks/README.md has no table of replacements")
    head = [cell.strip() for cell in found[0].splitlines()[0].strip("|").split("|")]
    columns = [index for index, cell in enumerate(head) if cell.endswith("%")]
    rows = {}
    for row in found[1].splitlines():
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        name = re.fullmatch(r"`(\w+)`( \(default\))?", cells[0])  # rows with a number or a loss are other recipes
        if name:
            # "on the calibration's kind of text / on books": the plot is of the former.
            rows[name[1]] = [float(cells[index].partition("/")[0]) for index in columns]
    return [float(head[index].removesuffix("%")) for index in columns], rows
