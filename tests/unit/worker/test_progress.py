import itertools
from typing import Any

from app.jobs.states import STAGES
from worker.progress import Progress


def event(kind: str, **data: Any) -> dict[str, Any]:
    return {"event": kind, "time": 0.0, **data}


def test_progress_grows_from_stage_to_stage_and_reaches_the_end() -> None:
    progress, seen = Progress(), []
    for stage in STAGES:
        progress.take(event("stage_started", stage=stage))
        progress.take(event("progress", stage=stage, done=1, total=2, unit="steps"))
        progress.take(event("stage_finished", stage=stage, seconds=1.0, skipped=False, outputs={}))
        seen.append(progress.drain()["progress"])
    assert seen == sorted(seen)
    assert seen[-1] > 0.99


def test_the_ends_of_a_stage_are_written_at_once_and_a_fast_loop_is_not() -> None:
    progress = Progress()
    progress.take(event("stage_started", stage="score"))
    assert progress.due()
    progress.drain()
    for done in range(100):
        progress.take(event("progress", stage="score", done=done, total=100, unit="sequences"))
    assert not progress.due()
    assert len(progress.drain()["events"]) == 1, "only the newest count is kept"


def test_a_skipped_stage_gives_no_attempts_back() -> None:
    progress = Progress()
    progress.take(event("stage_finished", stage="score", seconds=0.0, skipped=True, outputs={}))
    assert progress.drain()["stage_finished"] is False
    progress.take(event("stage_finished", stage="train", seconds=1.0, skipped=False, outputs={}))
    assert progress.drain()["stage_finished"] is True


def test_windows_and_rounds_share_the_way_between_them() -> None:
    looped = STAGES[: STAGES.index("evaluate")]
    rounds = [(stage, {"round": number, "rounds": 3}) for number in (1, 2, 3) for stage in looped]
    windows: list[tuple[str, dict[str, int]]] = [(stage, {}) for stage in looped if stage != "train"]
    windows[3:3] = [("train", {"window": 1, "windows": 2}), ("train", {"window": 2, "windows": 2})]
    ends = []
    for way in (rounds, windows):
        progress, seen = Progress(), []
        for stage, part in way:
            progress.take(event("stage_started", stage=stage, **part))
            progress.take(event("progress", stage=stage, done=1, total=2, unit="steps"))
            seen.append(progress.drain()["progress"])
            progress.take(event("stage_finished", stage=stage, seconds=1.0, skipped=False, outputs={}))
        assert all(a < b for a, b in itertools.pairwise(seen)), "it never stands still"
        ends.append(progress.drain()["progress"])
    assert ends[0] == ends[1] < 0.8, "what judges the result comes after"
