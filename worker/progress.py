"""The engine's events turned into a job's stage, its progress from 0 to 1, and rows for the event log."""

import time
from collections.abc import Callable, Mapping
from typing import Any

from app.jobs.event_log import Event

# Shares of a typical run's wall time (measured on the bundled model); they only shape the progress bar.
_SHARES = {
    "fetch": 0.01,
    "score": 0.30,
    "select": 0.01,
    "train": 0.25,
    "assemble": 0.02,
    "verify": 0.12,
    "evaluate": 0.15,
    "benchmark": 0.12,
    "publish": 0.02,
}
_IN_EACH_ROUND = ("fetch", "score", "select", "train", "assemble", "verify")
_EVERY_SECONDS = 0.5


class Progress:
    """Collects events and says when they are worth a write: at once at a stage's ends, else twice a second."""

    def __init__(self, watch: Callable[[Mapping[str, Any]], None] = lambda _: None) -> None:
        """Begin; `watch` is told of every event too."""
        self._watch = watch
        self.stage: str | None = None
        self.fraction = 0.0
        self._begin, self._share = 0.0, 0.0
        self.stage_finished = False
        self._events: list[Event] = []
        self._written_at = 0.0
        self._urgent = False

    def take(self, event: Mapping[str, Any]) -> None:
        """Note one event of the engine."""
        self._watch(event)
        kind = str(event.get("event", ""))
        stage = str(event["stage"]) if "stage" in event else self.stage
        if kind == "stage_started":
            self.stage, self._urgent = stage, True
            self._begin, self._share = _span(stage, event)
            self.fraction = max(self.fraction, self._begin)
        elif kind == "stage_finished":
            self._urgent = True
            # A stage that was skipped was finished by an earlier attempt: no reason to count attempts anew.
            self.stage_finished = self.stage_finished or not event.get("skipped", False)
            self.fraction = max(self.fraction, self._begin + self._share)
        elif kind == "progress":
            share = self._share * float(event["done"]) / max(float(event["total"]), 1.0)
            self.fraction = max(self.fraction, self._begin + share)
        if kind == "progress" and self._events and self._events[-1].kind == "progress":
            self._events.pop()  # only the newest counts
        self._events.append(Event(kind, {key: value for key, value in event.items() if key != "event"}))

    @property
    def pending(self) -> bool:
        """Whether there is anything that was not written yet."""
        return bool(self._events)

    def due(self) -> bool:
        """Whether there is something to write now."""
        return bool(self._events) and (self._urgent or time.monotonic() - self._written_at >= _EVERY_SECONDS)

    def drain(self) -> dict[str, Any]:
        """What is to be written, as arguments of `Lease.advance`; forgets it."""
        written = {
            "stage": self.stage,
            "progress": round(min(self.fraction, 0.999), 4),
            "events": self._events,
            "stage_finished": self.stage_finished,
        }
        self._events, self._urgent, self.stage_finished = [], False, False
        self._written_at = time.monotonic()
        return written

    def put_back(self, written: Mapping[str, Any]) -> None:
        """Take back what `drain` gave and could not be written."""
        self._events = [*written["events"], *self._events]
        self.stage_finished = self.stage_finished or written["stage_finished"]


def _span(stage: str | None, event: Mapping[str, Any]) -> tuple[float, float]:
    """Return where a stage begins and how much of the whole it is: of several windows or rounds each has its part."""
    share, begin = _SHARES.get(stage or "", 0.0), 0.0
    for name, before in _SHARES.items():
        if name == stage:
            break
        begin += before
    else:
        return 0.0, share
    if "round" in event:
        loop = sum(_SHARES[name] for name in _IN_EACH_ROUND)
        return (loop * (event["round"] - 1) + begin) / event["rounds"], share / event["rounds"]
    if "window" in event:
        return begin + share * (event["window"] - 1) / event["windows"], share / event["windows"]
    return begin, share
