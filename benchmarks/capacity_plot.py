"""The picture of a sweep: queue times and utilisation against the size of the fleet, and a day of one of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np

from app.dispatch.memory_classes import memory_class
from benchmarks.capacity import KINDS, Result
from benchmarks.capacity_model import DAY, HOUR, Arrival
from benchmarks.capacity_simulation import Outcome

mpl.use("Agg")
from matplotlib import pyplot as plt

COLOURS = ("#3b75af", "#c4622d", "#4f8f3a", "#8a5a9e", "#b59a1f", "#5b5b5b")
"""Told apart also where red and green are not."""
ACCEPTABLE = 10 * 60.0


def draw(found: Sequence[tuple[Result, Outcome[Arrival]]], days: int, file: Path) -> None:
    """Write the picture of these fleets, smallest first."""
    results = [result for result, _ in found]
    figure, (times, used, day) = plt.subplots(1, 3, figsize=(14, 4.2), layout="constrained")
    at = np.arange(len(results))
    names = ["+".join(map(str, result.fleet)) for result in results]
    classes = list(results[-1].waits)
    colours = dict(zip(classes, COLOURS, strict=False))
    labels = {name: f"{name}: {', '.join(_models(found[0][1], name))}" for name in classes}
    for name in classes:
        waits = [max(result.quantile(name, 0.95), 1.0) for result in results]
        times.plot(at, waits, marker="o", color=colours[name], label=labels[name])
    times.axhline(ACCEPTABLE, color="0.6", linewidth=1, linestyle="--")
    times.annotate("10 minutes", (at[-1], ACCEPTABLE), ha="right", va="bottom", color="0.4", fontsize=8)
    times.set_yscale("log")
    times.set_yticks(
        [1, 10, 60, 600, HOUR, 10 * HOUR, DAY], ["no wait", "10 s", "1 min", "10 min", "1 h", "10 h", "1 day"]
    )
    times.minorticks_off()
    times.set_title("95 % of the jobs wait less than")
    for colour, kind in zip(COLOURS, KINDS, strict=False):
        shares = [100 * result.utilisation.get(kind.name, np.nan) for result in results]
        used.plot(at, shares, marker="o", color=colour, label=f"{kind.name}, {kind.gigabytes} GB")
    used.set_ylim(0, 103)
    used.set_title("Utilisation, %")
    for axes in (times, used):
        axes.set_xticks(at, names, rotation=30, ha="right")
        axes.set_xlabel("number of L4 + L40S + H100")
    enough = next(
        (i for i, each in enumerate(results) if all(each.quantile(name, 0.95) <= ACCEPTABLE for name in classes)),
        len(results) - 1,
    )
    short = max(0, enough - 2)  # where waiting can be seen
    _draw_day(day, found[short][1], days, colours, labels)
    day.set_title(f"Jobs that wait, over the hours of a day ({names[short]})")
    for axes in (times, used, day):
        axes.legend(frameon=False, fontsize=8)
        axes.grid(axis="y", color="0.9", linewidth=0.8)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(file, dpi=110)
    plt.close(figure)


def _models(outcome: Outcome[Arrival], name: str) -> list[str]:
    """Return the names of the models whose jobs are of this class, smallest first."""
    found = {each.waiting.job.model for each in outcome.runs if memory_class(each.waiting.need) == name}
    return [model.name for model in sorted(found, key=lambda model: model.counts.dense)]


def _draw_day(
    axes: plt.Axes, outcome: Outcome[Arrival], days: int, colours: dict[str, str], labels: dict[str, str]
) -> None:
    """Draw the mean over the counted days of how many jobs wait at each time of day."""
    minutes = np.arange(0, 24 * 60, 5)
    for name, colour in colours.items():
        runs = [each for each in outcome.runs if memory_class(each.waiting.need) == name]
        came = np.sort([each.waiting.at for each in runs])
        began = np.sort([each.start for each in runs])
        moments = DAY + np.arange(days - 1)[:, None] * DAY + minutes * 60.0
        waiting = np.searchsorted(came, moments) - np.searchsorted(began, moments)
        axes.plot(minutes / 60, waiting.mean(axis=0), color=colour, label=labels[name])
    axes.set_xlim(0, 24)
    axes.set_xticks(range(0, 25, 4))
    axes.set_xlabel("hour of the day")
