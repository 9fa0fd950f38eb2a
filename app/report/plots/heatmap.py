"""The score of every window of layers, with the windows that were cut drawn in."""

from bisect import bisect_left
from collections.abc import Mapping
from typing import Any, Final

from markupsafe import Markup

from app.core.windows import runs
from app.report.plots.windows import Cells, named, scored
from app.report.quantities import digits
from app.report.svg import WIDTH, Plot, Table, picture, tag, words

LEFT, TOP, RIGHT = 40, 22, WIDTH - 8
_MOST_WITH_HINTS: Final = 4000  # windows that each get a hint; more would weigh megabytes
# Viridis (Smith and van der Walt): even steps of lightness, for the colour-blind too.
_VIRIDIS: Final = (
    (68, 1, 84), (71, 44, 122), (59, 81, 139), (44, 113, 142), (33, 144, 141), (39, 173, 129), (92, 200, 99),
    (170, 220, 50), (253, 231, 37),
)  # fmt: skip


def draw(report: Mapping[str, Any]) -> Plot | None:
    """First layer of the window across, its size upwards; the brighter, the less the window does."""
    scores = report.get("scores")
    if not scores:
        return None
    metric, higher, cells = scored(scores)
    if not cells:
        return None
    layers, removed = scores["layers"], runs(report.get("removed_layers") or [])
    cell = (RIGHT - LEFT) / layers
    tallest = max(size for _, size in cells)
    bottom = TOP + max(tallest * cell, 60)
    shades = _shades(cells, higher)
    parts = [_cell(key, shade, cells, cell, bottom) for key, shade in shades.items()]
    parts += [_best(cells, higher, size, cell, bottom) for size in sorted({size for _, size in cells})]
    parts += [_chosen(start, end, cells, cell, bottom) for start, end in removed]
    parts += _axes(layers, tallest, cell, bottom)
    parts.append(_legend(cells, higher, metric))
    cut = " and ".join(named(run) for run in removed) or "no layers"
    caption = (
        f"{metric.capitalize()} of all windows of layers: brighter is more redundant. Outlined: what was cut, {cut}. "
        f"Dots: the best window of each size.{_sentence(scores.get('stopped') or '')}"
    )
    if rounds := len(report.get("rounds") or []):
        caption += (
            f" This is what the first of {rounds} rounds scored, the dense model; each later one scored what the round "
            "before had left, and what it cut is outlined by the dense model's numbers."
        )
    drawing = picture(
        "heatmap",
        "Score of every window of layers",
        f"A triangle of {len(cells)} windows coloured by {metric}; the cut, {cut}, is outlined.",
        bottom + 58,
        *parts,
    )
    return Plot("heatmap", "Window scores", caption, drawing, _table(cells, higher))


def _sentence(said: str) -> str:
    return f" {said[0].upper()}{said[1:].rstrip('.')}." if said else ""


def _shades(cells: Cells, higher: bool) -> dict[tuple[int, int], float]:
    """Each window's rank among all, 0 worst to 1 best: scores crowd near 1, and ranks tell them apart."""
    ordered = sorted(cells.values(), reverse=not higher)
    keys = ordered if higher else [-value for value in ordered]
    last = max(1, len(keys) - 1)
    return {key: bisect_left(keys, value if higher else -value) / last for key, value in cells.items()}


def colour(share: float) -> str:
    """The colour at a share of the way from dark to bright."""
    place = min(max(share, 0.0), 1.0) * (len(_VIRIDIS) - 1)
    index = min(int(place), len(_VIRIDIS) - 2)
    mixed = (a + (b - a) * (place - index) for a, b in zip(_VIRIDIS[index], _VIRIDIS[index + 1], strict=True))
    return "#" + "".join(f"{round(part):02x}" for part in mixed)


def _cell(key: tuple[int, int], shade: float, cells: Cells, cell: float, bottom: float) -> Markup:
    start, size = key
    gap = 1 if cell > 6 else 0
    said = f"{named((start, start + size))}: {digits(cells[key])}"
    hint = (tag("title", said),) if len(cells) <= _MOST_WITH_HINTS else ()
    x, y = LEFT + start * cell, bottom - size * cell
    return tag("rect", *hint, x=x, y=y, width=cell - gap, height=cell - gap, fill=colour(shade))


def _best(cells: Cells, higher: bool, size: int, cell: float, bottom: float) -> Markup:
    of_size = {start: value for (start, each), value in cells.items() if each == size}
    start = (max if higher else min)(of_size, key=lambda key: of_size[key])
    x, y = LEFT + (start + 0.5) * cell, bottom - (size - 0.5) * cell
    return tag("circle", cx=x - 0.5, cy=y - 0.5, r=max(1.0, min(2.4, cell / 6)), class_="best")


def _chosen(start: int, end: int, cells: Cells, cell: float, bottom: float) -> Markup:
    size = end - start
    x, y = LEFT + start * cell, bottom - size * cell
    band = tag("rect", x=x, y=bottom + 3, width=size * cell - 1, height=6, rx=3, class_="fill cut")
    if (start, size) not in cells:  # several windows side by side, or a window that was never scored
        return band
    outline = {"x": x - 1.5, "y": y - 1.5, "width": cell + 2, "height": cell + 2, "rx": 2}
    span = tag("path", d=f"M{x:.1f} {y + cell + 2:.1f}V{bottom + 3:.1f}", class_="leader")
    return Markup("").join(
        [span, tag("rect", **outline, class_="outline-back"), tag("rect", **outline, class_="outline"), band]
    )


def _axes(layers: int, tallest: int, cell: float, bottom: float) -> list[Markup]:
    step = next(step for step in (1, 2, 4, 5, 10, 20, 50, 100, 1000) if step * cell >= 26 or step == 1000)
    parts = [words(0, 10, "layers in the window", kind="axis")]
    for layer in range(0, layers, step):
        parts.append(words(LEFT + (layer + 0.5) * cell, bottom + 26, layer, anchor="middle"))
    for size in [1, *range(step, tallest + 1, step)] if step > 1 else range(1, tallest + 1):
        parts.append(words(LEFT - 8, bottom - (size - 0.5) * cell + 4, size, anchor="end"))
    parts.append(words((LEFT + RIGHT) / 2, bottom + 46, "first layer of the window", anchor="middle", kind="axis"))
    return parts


def _legend(cells: Cells, higher: bool, metric: str) -> Markup:
    """In the corner that the triangle leaves free: colours with the scores at which they stand."""
    ordered = sorted(cells.values(), reverse=not higher)
    width, x, y = 160, RIGHT - 172, TOP + 30
    steps = 24
    parts = [words(x, y - 10, metric, kind="axis")]
    for index in range(steps):
        shade = colour(index / (steps - 1))
        parts.append(tag("rect", x=x + index * width / steps, y=y, width=width / steps + 0.4, height=9, fill=shade))
    for share, anchor in ((0.0, "start"), (0.5, "middle"), (1.0, "end")):
        value = ordered[round(share * (len(ordered) - 1))]
        parts.append(words(x + share * width, y + 24, f"{value:.3g}", anchor=anchor))
    return Markup("").join(parts)


def _table(cells: Cells, higher: bool) -> Table:
    rows = []
    for size in sorted({size for _, size in cells}):
        of_size = sorted(((value, start) for (start, each), value in cells.items() if each == size), reverse=higher)
        best = [f"{named((start, start + size))} ({digits(value)})" for value, start in of_size[:3]]
        rows.append([str(size), *[*best, "", ""][:3]])
    return Table(("layers", "best window", "second", "third"), rows)
