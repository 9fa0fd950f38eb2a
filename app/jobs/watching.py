"""Waiting for jobs to change without holding a thread or a database connection.

However many clients wait, one query per round asks for all of their jobs. Changes are made by other processes (the
workers), so that polling the row is the one signal that works on every database and queue.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import structlog
from sqlalchemy.exc import SQLAlchemyError
from starlette.concurrency import run_in_threadpool

from app.jobs.marks import Mark

EVERY_SECONDS: Final = 0.15

log = structlog.get_logger(__name__)


@dataclass(frozen=True, eq=False)
class _Waiter:
    job_id: str
    seen: Mark
    changed: asyncio.Future[None]


class Watcher:
    """Tells coroutines of one event loop when a job is no longer as they saw it."""

    def __init__(
        self, read_marks: Callable[[Iterable[str]], Mapping[str, Mark]], every_seconds: float = EVERY_SECONDS
    ) -> None:
        """Watch through `read_marks`, which runs in a thread."""
        self._read_marks = read_marks
        self._every = every_seconds
        self._waiters: set[_Waiter] = set()
        self._round: asyncio.Task[None] | None = None
        self.closed = False
        """The service stops: nobody waits here any more."""

    async def wait(self, job_id: str, seen: Mark, timeout: float) -> bool:
        """Return True as soon as the job differs from `seen`, False after `timeout` seconds or once this is closed."""
        if self.closed:
            return False
        waiter = _Waiter(job_id, seen, asyncio.get_running_loop().create_future())
        self._waiters.add(waiter)
        if self._round is None or self._round.done():
            self._round = asyncio.create_task(self._poll())
        try:
            async with asyncio.timeout(timeout):
                await waiter.changed
        except TimeoutError:
            return False
        finally:
            self._waiters.discard(waiter)
        return not self.closed

    def close(self) -> None:
        """Let everybody who waits go on now: a stopping service answers them, and they ask the next one."""
        self.closed = True
        for waiter in self._waiters:
            if not waiter.changed.done():
                waiter.changed.set_result(None)

    async def _poll(self) -> None:
        while self._waiters:
            await asyncio.sleep(self._every)
            # Who comes while the marks are read is not judged by them: they may be older than what it has seen.
            asking = list(self._waiters)
            try:
                marks = await run_in_threadpool(self._read_marks, {waiter.job_id for waiter in asking})
            except SQLAlchemyError as error:
                log.warning("watching_failed", error=type(error).__name__)  # the clients wait on
                continue
            for waiter in asking:
                if marks.get(waiter.job_id) != waiter.seen and not waiter.changed.done():
                    waiter.changed.set_result(None)
