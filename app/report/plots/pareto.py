"""Quality against speed and against size, a dot per job; the front joins those that no other job beats."""

from collections.abc import Sequence
from typing import NamedTuple

from markupsafe import Markup

from app.report.comparison import Comparison
from app.report.labels import RADIUS, Box, place
from app.report.quantities import count, ratio
from app.report.svg import WIDTH, Plot, Scale, Table, line, picture, shortened, tag, words, x_axis, y_axis

LEFT, TOP, RIGHT, BOTTOM = 52, 40, WIDTH - 20, 270

_ROOM = 200.0  # for a name: its beginning and its kind are both needed


class Point(NamedTuple):
    """A dot: across, up, whether it is on the front, what it is called, and the ends of its interval across."""

    x: float
    y: float
    chosen: bool
    called: str
    interval: Sequence[float] | None = None


def speed(comparison: Comparison) -> Plot | None:
    """Perplexity over the dense model's against the speed-up of decoding; the dense model itself is the cross."""
    called = labels(comparison)
    points = [
        Point(
            entry.speedup, entry.perplexity_ratio, entry.fastest_for_its_quality, called[entry.id],
            entry.speedup_interval,
        )
        for entry in comparison.entries
        if entry.speedup is not None and entry.perplexity_ratio is not None
    ]  # fmt: skip
    caption = "To the lower right is better: faster, and closer to the dense model." + _of_the_line(points)
    if any(point.interval for point in points):
        caption += (
            " Whiskers: where the speed-up lies with 95 % confidence; one that crosses 1 is too noisy to tell which "
            "model is faster."
        )
    head = ("job", "speed-up", "95 %", "perplexity ratio", "on the front")
    rows = [
        [p.called, ratio(p.x), " to ".join(map(ratio, p.interval or ())), ratio(p.y), "yes" if p.chosen else ""]
        for p in points
    ]
    drawing = _drawing("pareto-speed", "Quality against speed", "speed-up of decoding", points, (1.0, 1.0))
    return (
        None if drawing is None else Plot("pareto-speed", "Quality against speed", caption, drawing, Table(head, rows))
    )


def size(comparison: Comparison) -> Plot | None:
    """Perplexity over the dense model's against the parameters that are left, in millions; dense is the cross."""
    called = labels(comparison)
    points = [
        Point(entry.parameters / 1e6, entry.perplexity_ratio, entry.smallest_for_its_quality, called[entry.id])
        for entry in comparison.entries
        if entry.parameters is not None and entry.perplexity_ratio is not None
    ]
    caption = "To the lower left is better: smaller, and closer to the dense model." + _of_the_line(points)
    head = ("job", "parameters", "perplexity ratio", "on the front")
    rows = [[p.called, count(p.x * 1e6), ratio(p.y), "yes" if p.chosen else ""] for p in points]
    dense = _dense_size(comparison)
    cross = None if dense is None else (dense, 1.0)
    drawing = _drawing("pareto-size", "Quality against size", "million parameters", points, cross)
    return None if drawing is None else Plot("pareto-size", "Quality against size", caption, drawing, Table(head, rows))


def _dense_size(comparison: Comparison) -> float | None:
    """Million parameters of the dense model; None where the jobs do not share one."""
    sizes = [
        entry.parameters / (1 - entry.sparsity) / 1e6
        for entry in comparison.entries
        if entry.parameters is not None and entry.sparsity is not None and entry.sparsity < 1
    ]
    return sizes[0] if sizes and len({entry.model for entry in comparison.entries}) == 1 else None


def labels(comparison: Comparison) -> dict[str, str]:
    """What each job's dot is called, by the job's id: as in the table, and what was put in or the user's own labels."""
    return {
        entry.id: " ".join([entry.id[:8], *(entry.labels.values() or [entry.kind])]).strip()
        for entry in comparison.entries
    }


def _of_the_line(points: Sequence[Point]) -> str:
    """What the front is, where it is drawn."""
    return " The line joins what nothing beats." if sum(point.chosen for point in points) > 1 else ""


def _drawing(
    name: str, title: str, across: str, points: Sequence[Point], dense: tuple[float, float] | None
) -> Markup | None:
    if not points:
        return None
    xs = [x for x, *_ in points] + [end for point in points for end in point.interval or ()]
    xs += [dense[0]] if dense else []
    ys = [y for _, y, *_ in points] + [1.0]
    right, up = _padded(xs, LEFT, RIGHT), _padded(ys, BOTTOM, TOP)
    best = sorted((point.x, point.y) for point in points if point.chosen)
    parts = [
        words(0, TOP - 22, "perplexity, of the dense model's", kind="axis"),
        y_axis(up, LEFT, RIGHT, form="{:.4g}"),
        x_axis(right, BOTTOM, across, form="{:.4g}"),
    ]
    if len(best) > 1:
        parts.append(line([(right(x), up(y)) for x, y in best], "cut front"))
    if dense:
        x, y = right(dense[0]), up(dense[1])
        cross = f"M{x - 5:.1f} {y:.1f}h10M{x:.1f} {y - 5:.1f}v10"
        parts.append(tag("path", tag("title", "dense"), d=cross, class_="line dense"))
    # Those on the front are named first, then whoever has room; a dot without a name has it in its hint and the table.
    ordered = sorted(points, key=lambda point: not point[2])
    for x, y, chosen, called, interval in ordered:
        hint = tag("title", f"{called}: {across} {x:.3g}, perplexity {ratio(y)}")
        kind = "pruned" if chosen else "dense"
        if interval:
            low, high = map(right, interval)
            parts.append(tag("line", x1=low, x2=high, y1=up(y), y2=up(y), class_=f"interval {kind}"))
        parts.append(tag("circle", hint, cx=right(x), cy=up(y), r=RADIUS, class_=f"dot {kind}"))
    names = (["dense"] if dense else []) + [shortened(point.called, _ROOM) for point in ordered]
    places = ([dense] if dense else []) + [(x, y) for x, y, *_ in ordered]
    whiskers = [Box(right(p.interval[0]), up(p.y) - 2, right(p.interval[1]), up(p.y) + 2) for p in points if p.interval]
    dots = [(right(x), up(y)) for x, y in places]
    labels = place(names, dots, left=LEFT, top=TOP - 14, bottom=BOTTOM, others=whiskers)
    named = zip(names, labels, strict=True)
    parts += [words(label.x, label.baseline, called, kind="halo") for called, label in named if label]
    said = "; ".join(f"{p.called}: {across} {p.x:.3g}, perplexity {ratio(p.y)}" for p in points)
    return picture(name, title, said, BOTTOM + 44, *parts)


def _padded(values: Sequence[float], start: float, end: float) -> Scale:
    low, high = min(values), max(values)
    margin = (high - low) * 0.09 or 0.05 * abs(high) or 1.0
    return Scale(low - margin, high + margin, start, end)
