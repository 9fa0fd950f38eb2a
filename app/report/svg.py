"""Drawing in SVG: elements that are escaped, scales, axes. Colours are classes, so that the page's scheme decides.

Every figure is `WIDTH` units wide, about the width of a phone, so that its words can be read there without zooming.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from markupsafe import Markup, escape

WIDTH: Final = 440
_CHARACTER: Final = 7.7  # width of an average character at the size of a figure's words


@dataclass(frozen=True)
class Table:
    """The numbers behind a plot; the first column names the row."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Plot:
    """A picture with everything that stands in for it: what it shows in words, and its numbers."""

    name: str
    """Its id in the page."""
    title: str
    caption: str
    picture: Markup
    table: Table | None = None


def tag(name: str, *children: object, **attributes: object) -> Markup:
    """An element; `stroke_width` is the attribute stroke-width, `class_` is class, None is left out."""
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(_short(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    inner = Markup("").join(escape(child) for child in children)
    # Safe: the name is ours, attributes and children are escaped above.
    return Markup(f"<{name}{written}>{inner}</{name}>" if children else f"<{name}{written}/>")  # noqa: S704


def picture(name: str, title: str, description: str, height: float, *children: object) -> Markup:
    """The whole figure, named and described for those who do not see it."""
    return tag(
        "svg",
        tag("title", title, id=f"{name}-title"),
        tag("desc", description, id=f"{name}-description"),
        *children,
        role="img",
        aria_labelledby=f"{name}-title {name}-description",
        viewBox=f"0 0 {WIDTH} {height:g}",
    )


def words(x: float, y: float, text: object, *, anchor: str = "start", kind: str | None = None) -> Markup:
    """A line of text; `anchor` is start, middle or end."""
    return tag("text", text, x=x, y=y, text_anchor=anchor if anchor != "start" else None, class_=kind)


def width(text: str) -> float:
    """About how wide a line of text is."""
    return len(text) * _CHARACTER


def shortened(text: str, room: float) -> str:
    """The text, or its beginning and its end, in so many units of width: names of one kind differ at the end."""
    fitting = max(5, int(room / _CHARACTER))
    if len(text) <= fitting:
        return text
    start = fitting // 3
    return f"{text[:start]}…{text[len(text) - (fitting - start - 1) :]}"


def line(points: Iterable[tuple[float, float]], kind: str) -> Markup:
    """A line through points."""
    return tag("polyline", points=" ".join(f"{x:.1f},{y:.1f}" for x, y in points), class_=f"line {kind}")


@dataclass(frozen=True)
class Scale:
    """Maps [low, high] to [start, end] on the page, evenly or by ratios."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """The place of a value; values outside are moved to the edge."""
        low, high, at = self.low, self.high, min(max(value, self.low), self.high)
        if self.log:
            low, high, at = math.log(low), math.log(high), math.log(at)
        share = (at - low) / (high - low) if high > low else 0.5
        return self.start + share * (self.end - self.start)

    def ticks(self, count: int = 5) -> list[float]:
        """Round numbers within the scale."""
        return _log_ticks(self.low, self.high, count) if self.log else nice_ticks(self.low, self.high, count)


def nice_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """About `count` multiples of 1, 2 or 5 times a power of ten in [low, high]."""
    if not high > low:
        return [low]
    rough = (high - low) / max(1, count)
    power = 10.0 ** math.floor(math.log10(rough))
    step = power * next(factor for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(index * step, 12) for index in range(first, math.floor(high / step + 1e-9) + 1)]


def _log_ticks(low: float, high: float, count: int) -> list[float]:
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1, 2, 3, 5, 7), (1, 2, 5), (1, 3), (1,)):
        found = [f * 10.0**e for e in exponents for f in factors if low * 0.999 <= f * 10.0**e <= high * 1.001]
        if len(found) <= count + 1:
            break
    return found if len(found) > 1 else [low, high]


def y_axis(scale: Scale, left: float, right: float, form: str = "{:g}", count: int = 5) -> Markup:
    """Horizontal grid lines with their values on the left."""
    parts = []
    for value in scale.ticks(count):
        y = scale(value)
        parts += [
            tag("line", x1=left, x2=right, y1=y, y2=y, class_="grid"),
            words(left - 6, y + 4, form.format(value), anchor="end"),
        ]
    return Markup("").join(parts)


def x_axis(
    scale: Scale, bottom: float, label: object, values: Sequence[float] | None = None, form: str = "{:g}"
) -> Markup:
    """Values below the figure, and what they measure under them."""
    shown = scale.ticks() if values is None else values
    parts = [words(scale(value), bottom + 16, form.format(value), anchor="middle") for value in shown]
    parts.append(words((scale.start + scale.end) / 2, bottom + 34, label, anchor="middle", kind="axis"))
    return Markup("").join(parts)


def legend(entries: Sequence[tuple[str, str]], x: float, y: float) -> Markup:
    """Coloured dots with names, in one row; entries are (class, name)."""
    parts = []
    for kind, name in entries:
        parts += [tag("circle", cx=x + 5, cy=y - 4, r=5, class_=f"dot {kind}"), words(x + 14, y, name)]
        x += 26 + _CHARACTER * len(name)
    return Markup("").join(parts)


def _short(value: object) -> object:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else value
