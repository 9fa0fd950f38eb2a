"""Training and held-out loss of each step of training."""

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from app.report.quantities import digits
from app.report.svg import WIDTH, Plot, Scale, Table, legend, line, picture, tag, words, x_axis, y_axis

LEFT, TOP, RIGHT, HEIGHT, BELOW = 52, 50, WIDTH - 12, 190, 60
_MOST_TOLD = 3  # phases whose course is told in words
_LOG_FROM = 4.0  # a loss that falls by this factor is drawn by ratios

Points = list[tuple[float, float]]


def draw(report: Mapping[str, Any]) -> Plot | None:
    """A panel per phase of training, one above the other: the losses of different phases have different units."""
    training = report.get("training") or {}
    phases = _phases(report)
    if not phases:
        return None
    panel = TOP + HEIGHT + BELOW
    parts = [_panel(name, phase, cut, index * panel) for index, (name, phase, cut) in enumerate(phases)]
    rows = [
        [name, f"{point['step']}", digits(point["loss"])] for name, phase, _ in phases for point in phase["held_out"]
    ]
    told = phases if len(phases) <= _MOST_TOLD else phases[-1:]
    said = "; ".join(
        f"{name} from {digits(phase['held_out'][0]['loss'])} to {digits(phase.get('best'))}" for name, phase, _ in told
    )
    caption = f"Loss over the steps, of training and on sequences that were not trained on; of the latter {said}."
    if relative := training.get("relative_error"):
        caption += f" What is left of the cut's error in the hidden states (mse) at the end: {relative:.0%}."
    drawing = picture("losses", "Training and held-out loss", caption, panel * len(phases) - 16, *parts)
    table = Table(("loss", "step", "held out"), rows)
    return Plot("losses", "Training", caption, drawing, table)


def _phases(report: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any], float | None]]:
    """Every phase that has a course, with its name and, where it is of hidden states, the error of the plain cut."""
    training = report.get("training") or {}
    rounds = [each.get("training") or {} for each in report.get("rounds") or []]
    several = [(f"round {number}, ", each) for number, each in enumerate(rounds, 1)] or [
        (f"window {number}, ", each) for number, each in enumerate(training.get("windows") or [], 1)
    ]
    found = [
        (prefix + phase["loss"], phase, (training.get("mse") or {}).get("cut") if phase["loss"] == "mse" else None)
        for prefix, training in several or [("", training)]
        for phase in training.get("phases") or ()
    ]
    found += [(f"healing, {phase['loss']}", phase, None) for phase in (report.get("healing") or {}).get("phases") or ()]
    return [each for each in found if _points(each[1]["steps"]) and _points(each[1]["held_out"])]


def _panel(name: str, phase: Mapping[str, Any], cut: float | None, offset: float) -> Markup:
    trained, held_out = _points(phase["steps"]), _points(phase["held_out"])
    marks = {"only cut": float(cut)} if cut else {}
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
    for mark, value in marks.items():
        y = down(value)
        parts += [tag("line", x1=LEFT, x2=RIGHT, y1=y, y2=y, class_="mark"), words(RIGHT, y - 5, mark, anchor="end")]
    parts += [line(placed(trained), "soft"), line(placed(held_out), "pruned")]
    for (x, y), (step, loss) in zip(placed(held_out), held_out, strict=True):
        hint = tag("title", f"step {step:.0f}: held-out loss {digits(loss)}")
        parts.append(tag("circle", hint, cx=x, cy=y, r=3.5, class_="dot pruned"))
    keys = (("soft", f"{name}, training"), ("pruned", "held out"))
    parts.append(legend(keys, LEFT, offset + 14))
    return Markup("").join(parts)


def _points(points: Sequence[Mapping[str, Any]]) -> Points:
    return [(float(point["step"]), float(point["loss"])) for point in points if point["loss"] is not None]
