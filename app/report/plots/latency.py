"""How long single tokens take: the median one, and the slow ones that users wait for."""

from collections.abc import Mapping
from typing import Any

from app.report.plots.settings import colours, models_of, of_benchmark
from app.report.quantities import seconds
from app.report.svg import WIDTH, Plot, Scale, Table, legend, picture, shortened, tag, words

LEFT, RIGHT, TOP, ROW = 104, WIDTH - 18, 48, 34
_SHARES = ("p50", "p90", "p99")


def draw(report: Mapping[str, Any]) -> Plot | None:
    """A line per model from the median token to the slowest in a hundred, at the first setting."""
    settings = of_benchmark(report)
    first = settings[0]["models"] if settings else {}
    found = {name: latency for name in models_of(settings[:1]) if (latency := first[name].get("token_latency_s"))}
    if not found:
        return None
    scale = Scale(0, max(latency["p99"] for latency in found.values()) * 1e3 * 1.05, LEFT, RIGHT)
    bottom = TOP + ROW * len(found)
    parts = []
    for value in scale.ticks():
        x = scale(value)
        parts += [
            tag("line", x1=x, x2=x, y1=TOP - 6, y2=bottom, class_="grid"),
            words(x, bottom + 16, f"{value:g}", anchor="middle"),
        ]
    kinds = colours(list(found))
    for index, (name, latency) in enumerate(found.items()):
        y = TOP + ROW * (index + 0.5)
        low, high = (scale(latency[share] * 1e3) for share in ("p50", "p99"))
        parts += [
            words(LEFT - 12, y + 4, shortened(name, LEFT - 14), anchor="end"),
            tag("line", x1=low, x2=high, y1=y, y2=y, class_=f"interval {kinds[name]}"),
        ]
        for share, radius in zip(_SHARES, (6.5, 4.5, 3.0), strict=True):
            hint = tag("title", f"{name}, {share}: {seconds(latency[share])}")
            parts.append(
                tag("circle", hint, cx=scale(latency[share] * 1e3), cy=y, r=radius, class_=f"dot {kinds[name]}")
            )
    parts += [
        legend([("soft", "large to small: p50, p90, p99")], LEFT - 6, 16),
        words((LEFT + RIGHT) / 2, bottom + 36, "milliseconds per token", anchor="middle", kind="axis"),
    ]
    rows = [
        [
            str(setting["batch_size"]),
            str(setting["prompt_tokens"]),
            name,
            *(seconds(latency[share]) for share in _SHARES),
        ]
        for setting in settings
        for name in models_of([setting])
        if (latency := setting["models"][name].get("token_latency_s"))
    ]
    said = "; ".join(
        f"{name}: median {seconds(each['p50'])}, p99 {seconds(each['p99'])}" for name, each in found.items()
    )
    drawing = picture("latency", "Time per decoded token", said, bottom + 46, *parts)
    caption = (
        f"Over all single tokens of all rounds, batch size {settings[0]['batch_size']}: half of them are faster than "
        "p50, all but one in a hundred faster than p99."
    )
    head = ("batch size", "prompt", "model", *_SHARES)
    return Plot("latency", "Latency per token", caption, drawing, Table(head, rows))
