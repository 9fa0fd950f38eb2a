"""What somebody who waits is shown."""

from typing import Any

import pytest
from rich.console import Console

from app.cli.following import Bar, Follower, Lines, Pace, display, duration
from app.client import UnreachableError


def progress(done: int, time: float) -> dict[str, Any]:
    return {"done": done, "total": 100, "unit": "steps", "time": time, "stage": "train"}


def test_rate_and_time_left_come_from_the_services_own_clock() -> None:
    pace = Pace()
    pace.take(progress(10, 1000.0))
    assert str(pace) == "10/100 steps"
    pace.take(progress(60, 1005.0))
    assert str(pace) == "60/100 steps, 10/s, 4 s left"


def test_a_count_that_begins_anew_has_a_rate_of_its_own() -> None:
    pace = Pace()
    for done, time in ((0, 0.0), (100, 1.0), (0, 10.0), (20, 11.0)):
        pace.take(progress(done, time))
    assert pace.rate == 20


@pytest.mark.parametrize(("seconds", "said"), [(8.4, "8 s"), (200, "3 min 20 s"), (7500, "2 h 5 min")])
def test_durations_are_said_as_people_say_them(seconds: float, said: str) -> None:
    assert duration(seconds) == said


class Service:
    """Events as the service would list them."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, int | None]] = []
        self.new: list[dict[str, Any]] = []

    def events(self, _: str, *, after: int, last: int | None) -> list[dict[str, Any]]:
        self.asked.append((after, last))
        found, self.new = self.new, []
        return found


def test_who_attaches_late_reads_the_newest_events_only_and_then_those_behind_them() -> None:
    service, console = Service(), Console(force_terminal=False, width=100)
    follower = Follower(service, "j", Lines(console))  # type: ignore[arg-type]
    service.new = [{"id": 99_000, "event": "progress", "data": progress(10, 1.0)}]
    follower({"state": "running", "stage": "train", "progress": 0.5})
    follower({"state": "running", "stage": "train", "progress": 0.6})
    assert service.asked == [(0, 200), (99_000, None)]


def test_events_that_cannot_be_had_end_no_waiting() -> None:
    class Restarting(Service):
        def events(self, _: str, *, after: int, last: int | None) -> list[dict[str, Any]]:
            raise UnreachableError("http://127.0.0.1:8000")

    console = Console(force_terminal=False, width=100)
    with console.capture() as shown, display(console) as lines:
        Follower(Restarting(), "j", lines)({"state": "running", "stage": "score", "progress": 0.1})  # type: ignore[arg-type]
    assert "score" in shown.get()


def test_a_log_gets_a_line_per_stage() -> None:
    console = Console(force_terminal=False, width=100)
    with console.capture() as shown, display(console) as lines:
        follower = Follower(Service(), "j", lines)  # type: ignore[arg-type]
        for stage, share in (("fetch", 0.0), ("score", 0.1), ("score", 0.2), ("train", 0.4)):
            follower({"state": "running", "stage": stage, "progress": share})
    assert [line.split() for line in shown.get().splitlines()] == [["0%", "fetch"], ["10%", "score"], ["40%", "train"]]


def test_a_terminal_gets_a_bar_and_keeps_a_line_of_each_finished_stage() -> None:
    console = Console(force_terminal=True, width=100)
    with console.capture() as shown, display(console) as bar:
        assert isinstance(bar, Bar)
        service = Service()
        service.new = [
            {"id": 1, "event": "stage_finished", "data": {"stage": "score", "seconds": 2.5, "skipped": False}}
        ]
        Follower(service, "j", bar)({"state": "running", "stage": "train", "progress": 0.4})  # type: ignore[arg-type]
    assert "score      2 s" in shown.get()
