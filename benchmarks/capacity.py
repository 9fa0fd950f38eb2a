"""What a fleet of GPUs makes of 1,000 jobs a day: queue times, utilisation, and what is short first. A simulation.

    python -m benchmarks.capacity [--jobs 1000] [--days 8] [--fleet 8,6,5 ...] [--seed 0] [--out DIR]

A fleet is its numbers of L4 (24 GB), L40S (48 GB) and H100 (80 GB). Service times come from one measurement
(`benchmarks.capacity_model`), queues and their order from the service itself (`benchmarks.capacity_simulation`). The
first day fills the queues and is not counted. `--out` writes capacity.png, which needs matplotlib
(`pip install -e .[plots]`).
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from app.dispatch.memory_classes import memory_class
from benchmarks.capacity_model import (
    DAY,
    DEFAULT,
    H100,
    H200,
    HOUR,
    L4,
    L40S,
    MEASURED,
    MODELS,
    SECONDS_MEASURED,
    Arrival,
    Card,
    Mix,
    Model,
    Recipe,
    arrivals,
    job_seconds,
)
from benchmarks.capacity_simulation import Outcome, Waiting, simulate

KINDS: Final = (L4, L40S, H100)
FLEETS: Final = ((6, 4, 3), (8, 5, 4), (10, 6, 5), (12, 8, 6), (16, 10, 8), (20, 12, 10), (28, 16, 12))
"""Smallest first: too few, and more than enough."""
POLL_SECONDS: Final = 20.0  # `streamline submit --wait`: a long poll
REQUESTS_PER_JOB: Final = 30  # submit, look, report, events, and what a pull asks the hub beside the files
EVENTS_PER_SECOND: Final = 1.0  # of a running job, at most: progress is written down once a second


@dataclass(frozen=True)
class Load:
    """What the API, the hub and the store have to carry, on average and in the busiest hour."""

    clients: tuple[float, float]
    requests_per_second: tuple[float, float]
    store_bytes_per_second: tuple[float, float]


@dataclass(frozen=True)
class Result:
    """What a fleet made of the jobs; times in seconds."""

    fleet: tuple[int, ...]
    waits: dict[str, np.ndarray]
    utilisation: dict[str, float]
    load: Load
    never: int

    def quantile(self, name: str, share: float) -> float:
        """The queue time that this share of the class' jobs stays below."""
        waits = self.waits.get(name, np.empty(0))
        return float(np.quantile(waits, share)) if len(waits) else 0.0


def coming(jobs: Sequence[Arrival], largest: Card) -> list[Waiting[Arrival]]:
    """Return the jobs with the memory that the service would count for each."""
    needs = {name: Model.of(name).memory.required(must_be_whole=False, largest=largest.memory_bytes) for name in MODELS}
    return [Waiting(job.at, needs[job.model.name], job) for job in jobs]


def run(
    jobs: Sequence[Arrival], fleet: Sequence[int], days: int, *, smallest_idle: bool = False
) -> tuple[Result, Outcome[Arrival]]:
    """Simulate a fleet; the first of `days` is not counted. `smallest_idle`: see `simulate`."""
    cards = [kind for kind, number in zip(KINDS, fleet, strict=True) for _ in range(number)]
    largest = max(cards, key=lambda card: card.gigabytes)
    known: dict[tuple[str, Recipe, str], float] = {}

    def seconds(job: Arrival, card: Card) -> float:
        key = (job.model.name, job.recipe, card.name)
        if key not in known:
            known[key] = job_seconds(job.model, job.recipe, card)
        return known[key]

    outcome = simulate(coming(jobs, largest), cards, seconds, smallest_idle=smallest_idle)
    counted = [each for each in outcome.runs if DAY <= each.waiting.at < days * DAY]
    waits: dict[str, list[float]] = {}
    for each in counted:
        waits.setdefault(memory_class(each.waiting.need), []).append(each.waited)
    span = (DAY, days * DAY)
    busy = np.zeros(len(cards))
    for each in outcome.runs:
        busy[each.worker] += max(0.0, min(each.end, span[1]) - max(each.start, span[0]))
    used = {
        kind.name: float(np.mean([busy[at] for at, card in enumerate(cards) if card is kind])) / (span[1] - span[0])
        for kind in KINDS if kind in cards
    }  # fmt: skip
    ordered = dict(sorted(waits.items(), key=lambda item: int(item[0].removesuffix("g"))))
    result = Result(
        tuple(fleet), {name: np.asarray(found) for name, found in ordered.items()}, used, load_of(outcome, days),
        len(outcome.never),
    )  # fmt: skip
    return result, outcome


def load_of(outcome: Outcome[Arrival], days: int) -> Load:
    """Return the load of all jobs, each of which one client waits for; its result is pulled once.

    The store reads the dense model, takes the pruned one (three quarters of it) and sends that once.
    """
    edges = np.arange(DAY, days * DAY + 1, HOUR)
    clients, requests, carried = np.zeros((3, len(edges) - 1))
    for each in outcome.runs:
        overlap = np.clip(np.minimum(each.end, edges[1:]) - np.maximum(each.waiting.at, edges[:-1]), 0, None)
        clients += overlap
        requests += overlap / POLL_SECONDS
        running = np.clip(np.minimum(each.end, edges[1:]) - np.maximum(each.start, edges[:-1]), 0, None)
        requests += running * EVENTS_PER_SECOND
        at = np.searchsorted(edges, each.end) - 1
        if 0 <= at < len(requests):
            requests[at] += REQUESTS_PER_JOB
            carried[at] += each.waiting.job.model.checkpoint_bytes * (1 + 2 * 0.75)
    return Load(
        (float(clients.mean() / HOUR), float(clients.max() / HOUR)),
        (float(requests.mean() / HOUR), float(requests.max() / HOUR)),
        (float(carried.mean() / HOUR), float(carried.max() / HOUR)),
    )


def span(seconds: float) -> str:
    """A time for people."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 2 * HOUR else f"{seconds / HOUR:.1f} h"


def print_service_times() -> None:
    """Print how long each model keeps each card, beside the measurement that it comes from."""
    said = job_seconds(Model.of("7B"), MEASURED, H200)
    print(f"The 7B run of the measurement, by the formula: {said:.0f} s; measured: {SECONDS_MEASURED:.0f} s (H200).\n")
    print("| model | needs | " + " | ".join(f"{card.name} ({card.gigabytes} GB)" for card in KINDS) + " |")
    print("|---|---|" + "---|" * len(KINDS))
    for name in MODELS:
        model = Model.of(name)
        need = model.memory.required(must_be_whole=False, largest=H100.memory_bytes)
        cells = [
            span(job_seconds(model, DEFAULT, card)) if need <= card.memory_bytes else "" for card in KINDS
        ]  # fmt: skip
        print(f"| {name} | {need / 1e9:.1f} GB, `{memory_class(need)}` | " + " | ".join(cells) + " |")


def print_results(results: Sequence[Result]) -> None:
    """Print a row per fleet: queue times by class, utilisation by card."""
    classes = list(dict.fromkeys(name for result in results for name in result.waits))
    heads = [f"{name}: p50 / p95 / p99" for name in classes]
    print("\n| " + " + ".join(card.name for card in KINDS) + " | " + " | ".join(heads) + " | utilisation |")
    print("|---|" + "---|" * len(classes) + "---|")
    for result in results:
        cells = [" / ".join(span(result.quantile(name, share)) for share in (0.5, 0.95, 0.99)) for name in classes]
        used = ", ".join(f"{name} {share:.0%}" for name, share in result.utilisation.items())
        print(f"| {' + '.join(map(str, result.fleet))} | " + " | ".join(cells) + f" | {used} |")
    load = results[len(results) // 2].load
    print(
        f"\nClients that wait: {load.clients[0]:.0f}, {load.clients[1]:.0f} in the busiest hour. "
        f"API: {load.requests_per_second[0]:.0f} requests and events a second, {load.requests_per_second[1]:.0f} in "
        f"the busiest hour. Store: {load.store_bytes_per_second[0] / 1e6:.0f} MB/s, "
        f"{load.store_bytes_per_second[1] / 1e6:.0f} MB/s in the busiest hour."
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=float, default=1000, help="a day (%(default)s)")
    parser.add_argument("--days", type=int, default=8, help="simulated; the first is not counted (%(default)s)")
    parser.add_argument("--fleet", nargs="+", help="numbers of L4, L40S and H100, as 8,6,5; default: a sweep")
    parser.add_argument("--smallest-idle", action="store_true", help="what if the smallest idle card took each job")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="directory for capacity.png")
    options = parser.parse_args()
    fleets = [tuple(int(number) for number in text.split(",")) for text in options.fleet or ()] or list(FLEETS)
    if options.days < 2 or any(len(fleet) != len(KINDS) or sum(fleet) == 0 for fleet in fleets):
        parser.error("at least 2 days, and a fleet is three numbers, not all of them 0")
    if options.out and importlib.util.find_spec("matplotlib") is None:
        parser.error("--out draws with matplotlib, which is not here: pip install -e '.[plots]'")
    print_service_times()
    jobs = arrivals(options.jobs, options.days, Mix(), options.seed)
    found = [run(jobs, fleet, options.days, smallest_idle=options.smallest_idle) for fleet in fleets]
    print_results([result for result, _ in found])
    if options.out:
        from benchmarks.capacity_plot import draw

        options.out.mkdir(parents=True, exist_ok=True)
        draw(found, options.days, options.out / "capacity.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
