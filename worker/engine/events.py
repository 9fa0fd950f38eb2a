"""What the engine tells while it works: typed events, as JSON lines on a stream or as progress for a person.

Every event carries ``event`` and ``time`` (unix seconds, UTC). The same emitter writes the optional events.jsonl.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol, TextIO

PROGRESS_INTERVAL_S = 0.25
"""At most four progress events a second, so that a fast loop never drowns the pipe."""

MOST_SCORES = 8192
"""Scores that one event carries at most: the smallest windows of a very deep model. `scores.json` has them all."""

Event = Mapping[str, Any]

Part = tuple[Literal["window", "round"], int, int]
"""Which of how many windows, or rounds, a stage is at work for."""


def finite(value: float | None) -> float | None:
    """Return the number, or None where it is NaN or infinite: JSON has neither."""
    return value if value is not None and math.isfinite(value) else None


def short_table(table: Sequence[Sequence[float | None]]) -> list[list[float | None]]:
    """Return scores of windows to 4 digits, without what is missing at a row's end, and no more than `MOST_SCORES`."""
    layers = len(table)
    sizes = next((n for n in range(layers, 1, -1) if n * layers - n * (n - 1) // 2 <= MOST_SCORES), 1)
    return [
        [None if score is None else float(f"{score:.4g}") for score in row[: min(sizes, layers - first)]]
        for first, row in enumerate(table)
    ]


class Sink(Protocol):
    """Somewhere that events go."""

    def write(self, event: Event) -> None:
        """Take one event."""


class JsonLines:
    """One JSON object per line, flushed at once: the reader is another process."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, event: Event) -> None:
        """Write the event and flush."""
        self._stream.write(json.dumps(event, separators=(",", ":"), allow_nan=False) + "\n")
        self._stream.flush()


class Collected:
    """Keeps events in memory, for tests and for callers in the same process."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def write(self, event: Event) -> None:
        """Append the event."""
        self.events.append(event)


class Emitter:
    """Stamps events and hands them to the sinks; remembers the stage under way so that callers need not name it."""

    def __init__(self, *sinks: Sink) -> None:
        self._sinks = sinks
        self._last_progress = 0.0
        self.stage = ""

    def _send(self, event: str, /, **data: Any) -> None:
        stamped = {"event": event, "time": time.time(), **data}
        for sink in self._sinks:
            sink.write(stamped)

    def stage_started(self, stage: str, part: Part | None = None) -> None:
        """A stage begins; progress, metrics and log lines that follow belong to it."""
        self.stage, self._last_progress = stage, 0.0
        self._send("stage_started", stage=stage, **({part[0]: part[1], f"{part[0]}s": part[2]} if part else {}))

    def stage_finished(self, stage: str, *, seconds: float, skipped: bool, outputs: Mapping[str, str]) -> None:
        """A stage is done, or was found done (`skipped`); `outputs` maps relative path -> sha256."""
        self._send("stage_finished", stage=stage, seconds=seconds, skipped=skipped, outputs=dict(outputs))

    def progress(self, done: int, total: int, unit: str, *, force: bool = False) -> None:
        """`done` of `total` units; sent at most four times a second, and always for the last one."""
        now = time.monotonic()
        if not force and done < total and now - self._last_progress < PROGRESS_INTERVAL_S:
            return
        self._last_progress = now
        self._send("progress", stage=self.stage, done=done, total=total, unit=unit)

    def metric(self, phase: str | None = None, /, **values: float | None) -> None:
        """Numbers measured during the stage, for example step and loss; one that is not finite is sent as None.

        `phase` names the course that they are points of, where a stage has several.
        """
        named = {} if phase is None else {"phase": phase}
        self._send("metric", stage=self.stage, **named, **{name: finite(value) for name, value in values.items()})

    def scores(self, metric: str, better: str, table: Sequence[Sequence[float | None]]) -> None:
        """The windows' scores: ``table[i][n - 1]`` is that of the n layers from i on, `better` is higher or lower."""
        self._send("scores", stage=self.stage, metric=metric, better=better, table=short_table(table))

    def selected(self, windows: Sequence[tuple[int, int]]) -> None:
        """The windows [start, end) that go, numbered as those that were scored."""
        self._send("selected", stage=self.stage, windows=[list(window) for window in windows])

    def log(self, message: str) -> None:
        """One sentence for the job's log."""
        self._send("log", stage=self.stage, message=message)

    def failed(self, code: str, detail: str, *, permanent: bool) -> None:
        """The run ends here; the last event before exit 1."""
        self._send("failed", stage=self.stage, code=code, detail=detail, permanent=permanent)

    def finished(self, report: str) -> None:
        """The run succeeded; `report` is the report's path relative to the workspace."""
        self._send("finished", report=report)


def silent() -> Emitter:
    """Return an emitter that tells nobody, for library use."""
    return Emitter()


def to_stdout() -> JsonLines:
    """Return the machine-readable sink of ``--json``."""
    return JsonLines(sys.stdout)
