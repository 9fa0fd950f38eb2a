"""Saying that this worker is there, and for which jobs, so that people whose job waits can see what it waits for.

At its start it also says, in the log, that the database lacks what it works with: all that it would tell otherwise is
that statements fail.
"""

import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from app.jobs import workers

log = structlog.get_logger(__name__)


class Presence:
    """While the context is open, the worker is noted every now and then; a database that is away is tried again."""

    def __init__(self, sessions: sessionmaker[Session], name: str, memory_bytes: int | None) -> None:
        self._sessions = sessions
        self._name = name
        self._memory_bytes = memory_bytes
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._say_until_closed, name="presence", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._closed.set()
        self._thread.join(timeout=1.0)  # a database that is away must not hold a stop up
        if not self._thread.is_alive():
            self._write(lambda session: workers.gone(session, self._name))

    def _say_until_closed(self) -> None:
        compared = False
        while True:
            compared = compared or self._compare_schema()
            self._write(lambda session: workers.seen(session, self._name, self._memory_bytes))
            if self._closed.wait(workers.SEEN_EVERY_SECONDS):
                return

    def _compare_schema(self) -> bool:
        """Tell, once, of migrations that have not run; False: the database did not answer."""
        from alembic.util import CommandError  # slow to import, and the worker needs nothing else of it

        from app.db.migrate import is_behind

        try:
            with self._sessions() as session:
                behind = is_behind(session)
        except (SQLAlchemyError, OSError, CommandError):
            return False
        if behind:
            log.error(
                "database_behind",
                detail="The database lacks a migration of this release; run `streamline migrate`. What needs it waits.",
            )
        return True

    def _write(self, write: Callable[[Session], None]) -> None:
        try:
            with self._sessions.begin() as session:
                write(session)
        except (SQLAlchemyError, OSError) as error:
            log.warning("presence_not_noted", error=type(error).__name__)
