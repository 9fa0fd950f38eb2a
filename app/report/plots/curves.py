"""A measure of every model over a setting: lines through medians, bands from quartile to quartile."""

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from app.report.plots.settings import Setting, colours, models_of
from app.report.quantities import digits
from app.report.svg import WIDTH, Scale, legend, line, picture, shortened, tag, words, y_axis

LEFT, TOP, RIGHT, HEIGHT = 58, 56, WIDTH - 14, 190


def curves(
    name: str, title: str, settings: Sequence[Setting], over: str, measure: str, label: str, across: str
) -> Markup:
    """The drawing of `measure` against the field `over` of the settings, with the spread of the rounds."""
    models = models_of(list(settings))
    kinds = colours(models)
    found = {
        model: [(s[over], s["models"][model][measure]) for s in settings if measure in s["models"].get(model, {})]
        for model in models
    }
    spreads = [spread for points in found.values() for _, spread in points]
    low = min(spread["lower_quartile"] for spread in spreads)
    high = max(spread["upper_quartile"] for spread in spreads)
    log = high / max(low, 1e-12) > 5
    bottom = TOP + HEIGHT + 18 * (len(models) > 3)
    down = Scale(low / 1.1, high * 1.1, bottom, TOP, True) if log else Scale(0, high * 1.06, bottom, TOP)
    places = sorted({setting[over] for setting in settings})
    at = {value: LEFT + (RIGHT - LEFT) * (index + 0.5) / len(places) for index, value in enumerate(places)}
    parts = [y_axis(down, LEFT, RIGHT, form="{:,.4g}"), words(0, TOP - 14, label, kind="axis")]
    parts += [words(at[value], bottom + 16, value, anchor="middle") for value in places]
    parts.append(words((LEFT + RIGHT) / 2, bottom + 36, across, anchor="middle", kind="axis"))
    for model, points in found.items():
        parts.append(_curve(model, kinds[model], points, at, down))
    keys = [(kinds[model], shortened(model, 130)) for model in models]
    parts += [legend(keys[index : index + 3], 0, 14 + 16 * (index // 3)) for index in range(0, len(keys), 3)]
    said = "; ".join(
        f"{model}: " + ", ".join(f"{digits(spread['median'])} at {value}" for value, spread in points)
        for model, points in found.items()
    )
    return picture(name, title, said, bottom + 46, *parts)


def _curve(
    model: str, kind: str, points: Sequence[tuple[int, Mapping[str, Any]]], at: Mapping[int, float], down: Scale
) -> Markup:
    upper = [(at[value], down(spread["upper_quartile"])) for value, spread in points]
    lower = [(at[value], down(spread["lower_quartile"])) for value, spread in points]
    outline = " ".join(f"{x:.1f},{y:.1f}" for x, y in [*upper, *reversed(lower)])
    parts = []
    if len(points) > 1:
        parts += [
            tag("polygon", points=outline, class_=f"band {kind}"),
            line([(at[value], down(spread["median"])) for value, spread in points], kind),
        ]
    for value, spread in points:
        x = at[value]
        low, middle, high = (digits(spread[end]) for end in ("lower_quartile", "median", "upper_quartile"))
        hint = tag("title", f"{model} at {value}: {middle} ({low} to {high})")
        parts += [
            tag(
                "line",
                x1=x,
                x2=x,
                y1=down(spread["lower_quartile"]),
                y2=down(spread["upper_quartile"]),
                class_=f"interval {kind}",
            ),
            tag("circle", hint, cx=x, cy=down(spread["median"]), r=4.5, class_=f"dot {kind}"),
        ]
    return Markup("").join(parts)
