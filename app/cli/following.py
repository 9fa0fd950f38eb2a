"""A job's progress while somebody waits: a bar with rate and time left for people, plain lines for logs."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeElapsedColumn
from rich.text import Text

from app.client import Job, ProblemError, Streamline, UnreachableError

_LINE_EVERY_SECONDS = 10.0
_FIRST_LOOK = 200  # events: enough to find the stage under way, however long the job has been running


class Display(Protocol):
    """Shows what a stage has come to."""

    def stage(self, name: str, job: Job) -> None:
        """The job is in another stage now."""

    def advance(self, job: Job, pace: "Pace") -> None:
        """The stage went on."""

    def finished(self, name: str, seconds: float, *, skipped: bool) -> None:
        """A stage has ended."""


class Pace:
    """How fast a stage goes: done, total, units per second, and the seconds that are left at that rate."""

    def __init__(self) -> None:
        self.done = self.total = 0.0
        self.unit = ""
        self._first: tuple[float, float] | None = None
        self._now = 0.0

    def take(self, data: Mapping[str, Any]) -> None:
        """Note a progress event; its time is the service's own, so that a late look changes nothing."""
        begins_anew = float(data["done"]) < self.done
        self.done, self.total, self.unit = float(data["done"]), float(data["total"]), str(data["unit"])
        self._now = float(data["time"])
        if self._first is None or begins_anew:
            self._first = self.done, self._now

    @property
    def rate(self) -> float | None:
        """Units per second since the stage was first seen; None before there are two sights of it."""
        if self._first is None or self._now <= self._first[1] or self.done <= self._first[0]:
            return None
        return (self.done - self._first[0]) / (self._now - self._first[1])

    @property
    def seconds_left(self) -> float | None:
        """At this rate; None where there is none yet."""
        return None if self.rate is None else (self.total - self.done) / self.rate

    def __str__(self) -> str:
        """For example `120/640 sequences, 52/s, 10 s left`; empty where nothing was counted."""
        if not self.total:
            return ""
        parts = [f"{self.done:,.0f}/{self.total:,.0f} {self.unit}"]
        if self.rate is not None and self.seconds_left is not None:
            parts += [f"{self.rate:,.3g}/s", f"{duration(self.seconds_left)} left"]
        return ", ".join(parts)


def duration(seconds: float) -> str:
    """Seconds as people say them: `8 s`, `3 min 20 s`, `2 h 5 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


class Follower:
    """Tells a display what is new whenever the job has changed."""

    def __init__(self, service: Streamline, job_id: str, display: Display) -> None:
        self._service, self._job_id, self._display = service, job_id, display
        self._after = 0
        self._pace = Pace()
        self._stage = ""

    def __call__(self, job: Job) -> None:
        """The job has changed."""
        # Events are for the eye alone: what goes wrong with them ends no waiting, and the next look catches up.
        with suppress(UnreachableError, ProblemError, KeyError, TypeError, ValueError):
            for event in self._service.events(
                self._job_id, after=self._after, last=None if self._after else _FIRST_LOOK
            ):
                self._after = event["id"]
                self._take(event["event"], event["data"])
        stage = job["stage"] if job["state"] == "running" and job["stage"] else job["state"]
        if stage != self._stage:
            self._stage = stage
            self._display.stage(stage, job)
        self._display.advance(job, self._pace)

    def _take(self, kind: str, data: Mapping[str, Any]) -> None:
        if kind == "stage_started":
            self._pace = Pace()
        elif kind == "progress":
            self._pace.take(data)
        elif kind == "stage_finished":
            self._display.finished(data["stage"], float(data["seconds"]), skipped=bool(data.get("skipped")))


class Lines:
    """A line when a stage begins and one every ten seconds within a long one: what a build log can bear."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._said_at = 0.0
        self._name = ""

    def stage(self, name: str, job: Job) -> None:
        """Say the stage's name."""
        self._name = name
        self._say(job, "")

    def advance(self, job: Job, pace: Pace) -> None:
        """Say how far it is, now and then."""
        if time.monotonic() - self._said_at > _LINE_EVERY_SECONDS:
            self._say(job, str(pace))

    def finished(self, name: str, seconds: float, *, skipped: bool) -> None:
        """Nothing: the next stage's line says it."""

    def _say(self, job: Job, more: str) -> None:
        self._said_at = time.monotonic()
        line = f"{job['progress']:>5.0%}  {self._name:<10} {more}".rstrip()
        self._console.print(line, highlight=False, soft_wrap=True)


class _PaceColumn(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(task.fields["pace"])


class Bar:
    """A bar of the whole job, with the stage's own count, rate and time left; finished stages stay above it."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task = progress.add_task("", total=1.0, stage="", pace="")

    def stage(self, name: str, job: Job) -> None:
        """Name the stage."""
        self._progress.update(self._task, stage=name, pace="", completed=job["progress"])

    def advance(self, job: Job, pace: Pace) -> None:
        """Move the bar."""
        self._progress.update(self._task, completed=job["progress"], pace=str(pace))

    def finished(self, name: str, seconds: float, *, skipped: bool) -> None:
        """Leave a line."""
        how = "was done before" if skipped else duration(seconds) if seconds >= 1 else f"{seconds:.2f} s"
        self._progress.console.print(f"{name:<10} {how}", highlight=False)


@contextmanager
def display(console: Console) -> Iterator[Display]:
    """A bar in a terminal, lines elsewhere."""
    if not console.is_terminal:
        yield Lines(console)
        return
    columns = (
        TextColumn("{task.fields[stage]:<10}"),
        BarColumn(bar_width=30),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
        _PaceColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        yield Bar(progress)
