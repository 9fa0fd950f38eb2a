"""Waiting for a job: woken by its change, by nothing else, and with one query for everybody."""

import asyncio
import threading
from collections.abc import Iterable, Iterator

from sqlalchemy.exc import OperationalError

from app.jobs.marks import Mark
from app.jobs.watching import Watcher

OLD, NEW = Mark("a", 1, 1, False), Mark("a", 2, 2, False)


def test_a_change_wakes_those_who_wait_for_it_and_nobody_else() -> None:
    marks = {"a": OLD, "b": OLD}

    async def scene() -> tuple[bool, bool]:
        watcher = Watcher(lambda ids: {job_id: marks[job_id] for job_id in ids}, every_seconds=0.01)
        first, second = (asyncio.create_task(watcher.wait(job, OLD, limit)) for job, limit in (("a", 60), ("b", 0.3)))
        await asyncio.sleep(0.05)
        marks["a"] = NEW
        return await first, await second

    assert asyncio.run(scene()) == (True, False)


def test_who_comes_while_the_marks_are_read_is_not_judged_by_them() -> None:
    reading, go_on = threading.Event(), threading.Event()

    def read(ids: Iterable[str]) -> dict[str, Mark]:
        found = dict.fromkeys(ids, OLD)
        reading.set()
        go_on.wait()
        return found

    async def scene() -> tuple[bool, bool]:
        watcher = Watcher(read, every_seconds=0.01)
        early = asyncio.create_task(watcher.wait("a", NEW, 60))
        await asyncio.to_thread(reading.wait)
        late = asyncio.create_task(watcher.wait("b", OLD, 0.2))
        await asyncio.sleep(0.01)
        go_on.set()
        return await early, await late

    assert asyncio.run(scene()) == (True, False)


def test_a_database_that_is_away_for_a_moment_ends_no_wait() -> None:
    answers: Iterator[Exception | dict[str, Mark]] = iter(
        [OperationalError("", {}, Exception()), {"a": OLD}, {"a": NEW}]
    )

    def read(_: Iterable[str]) -> dict[str, Mark]:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def scene() -> bool:
        return await Watcher(read, every_seconds=0.01).wait("a", OLD, 60)

    assert asyncio.run(scene())


def test_a_stopping_service_lets_everybody_go_at_once_and_keeps_nobody_who_comes_later() -> None:
    async def scene() -> tuple[bool, bool]:
        watcher = Watcher(lambda ids: dict.fromkeys(ids, OLD), every_seconds=0.01)
        waiting = asyncio.create_task(watcher.wait("a", OLD, 600))
        await asyncio.sleep(0.05)
        watcher.close()
        return await waiting, await watcher.wait("a", OLD, 600)

    assert asyncio.run(asyncio.wait_for(scene(), 60)) == (False, False)


def test_many_who_wait_cost_one_query_a_round() -> None:
    rounds: list[set[str]] = []

    def read(ids: Iterable[str]) -> dict[str, Mark]:
        rounds.append(set(ids))
        return dict.fromkeys(ids, OLD if len(rounds) < 3 else NEW)

    async def scene() -> None:
        watcher = Watcher(read, every_seconds=0.01)
        await asyncio.gather(*(watcher.wait(f"job {number % 7}", OLD, 60) for number in range(200)))

    asyncio.run(scene())
    assert len(rounds) == 3
    assert len(rounds[0]) == 7
