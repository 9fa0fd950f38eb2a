"""Training and held-out loss of each step of training."""

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from app.report.quantities import digits
from app.report.svg import WIDTH, Plot, Scale, Table, legend, line, picture, tag, words, x_axis, y_axis

LEFT, TOP, RIGHT, HEIGHT, BELOW = 52, 50, WIDTH - 12, 190, 60
_LOG_FROM = 4.0  # a loss that falls by this factor is drawn by ratios

Points = list[tuple[float, float]]


def draw(report: Mapping[str, Any]) -> Plot | None:
    """A panel per phase of training, one above the other: the losses of different phases have different units."""
    training = report.get("training") or {}
    trained = [*(training.get("phases") or ()), *((report.get("healing") or {}).get("phases") or ())]
    phases = [phase for phase in trained if _points(phase["steps"]) and _points(phase["held_out"])]
    if not phases:
        return None
    panel = TOP + HEIGHT + BELOW
    parts = [_panel(phase, training, index * panel) for index, phase in enumerate(phases)]
    rows = [
        [phase["loss"], f"{point['step']}", digits(point["loss"])] for phase in phases for point in phase["held_out"]
    ]
    last = phases[-1]
    said = f"held-out {last['loss']} fell from {digits(last['held_out'][0]['loss'])} to {digits(last.get('best'))}"
    caption = f"Loss over the steps of training; {said} on sequences that were not trained on."
    if relative := training.get("relative_error"):
        caption += f" What is left of the cut's error: {relative:.0%}."
    drawing = picture("losses", "Training and held-out loss", caption, panel * len(phases) - 16, *parts)
    table = Table(("loss", "step", "held out"), rows)
    return Plot("losses", "Training", caption, drawing, table)


def _panel(phase: Mapping[str, Any], training: Mapping[str, Any], offset: float) -> Markup:
    trained, held_out = _points(phase["steps"]), _points(phase["held_out"])
    marks = {}
    if phase["loss"] == "mse" and (cut := (training.get("mse") or {}).get("cut")):
        marks["only cut"] = float(cut)
    values = [y for _, y in trained + held_out] + list(marks.values())
    low, high = min(values), max(values)
    log = low > 0 and high / low >= _LOG_FROM
    if not log:
        low, high = min(0.0, low) if low < 0.5 * high else low, high * 1.03
    top, bottom = offset + TOP, offset + TOP + HEIGHT
    down = Scale(low * (0.92 if log else 1), high * (1.08 if log else 1), bottom, top, log)
    across = Scale(0, max(x for x, _ in trained + held_out), LEFT, RIGHT)

    def placed(points: Points) -> Points:
        return [(across(x), down(y)) for x, y in points]

    parts = [y_axis(down, LEFT, RIGHT, form="{:.3g}"), x_axis(across, bottom, "step")]
    for name, value in marks.items():
        y = down(value)
        parts += [tag("line", x1=LEFT, x2=RIGHT, y1=y, y2=y, class_="mark"), words(RIGHT, y - 5, name, anchor="end")]
    parts += [line(placed(trained), "soft"), line(placed(held_out), "pruned")]
    for (x, y), point in zip(placed(held_out), phase["held_out"], strict=False):
        hint = tag("title", f"step {point['step']}: held-out loss {digits(point['loss'])}")
        parts.append(tag("circle", hint, cx=x, cy=y, r=3.5, class_="dot pruned"))
    keys = (("soft", f"training, {phase['loss']}"), ("pruned", "held out"))
    parts.append(legend(keys, LEFT, offset + 14))
    return Markup("").join(parts)


def _points(points: Sequence[Mapping[str, Any]]) -> Points:
    return [(float(point["step"]), float(point["loss"])) for point in points if point["loss"] is not None]
