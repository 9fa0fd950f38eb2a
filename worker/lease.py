"""Holding a job: the heartbeat that renews the lease, in a thread of its own, whatever else the worker is busy with.

A beat may hang on a connection that has gone silent, so the time since the last one counts, not its answer.
"""

import contextvars
import threading
import time
from collections.abc import Iterable
from types import TracebackType
from typing import Self

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from app.jobs import repository
from app.jobs.event_log import Event
from app.jobs.repository import Claim, LeaseLostError

log = structlog.get_logger(__name__)


class AttemptEndedError(Exception):
    """The attempt ends before its work does, and through no fault of the job's; the message says why."""


class Lease:
    """A claimed job. While the context is open the lease is renewed; `lost()` and `cancel` tell what beats learned."""

    def __init__(
        self, sessions: sessionmaker[Session], claim: Claim, *, heartbeat_seconds: float, lease_seconds: float
    ) -> None:
        self.claim = claim
        self.cancel = threading.Event()
        self._sessions = sessions
        self._every = heartbeat_seconds
        self._lease_seconds = lease_seconds
        self._taken = threading.Event()
        self._renewed_at = time.monotonic()
        self._closed = threading.Event()
        self._thread = threading.Thread(
            target=contextvars.copy_context().run,  # log lines carry the same ids
            args=(self._beat_until_closed,),
            name=f"beat-{claim.job_id}",
            daemon=True,
        )

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._closed.set()
        self._thread.join()

    def lost(self) -> bool:
        """Whether the job is no longer ours, or may not be: the database has not renewed the lease for its length."""
        return self._taken.is_set() or time.monotonic() - self._renewed_at > self._lease_seconds

    def _beat_until_closed(self) -> None:
        while not self._closed.wait(self._every):
            asked = time.monotonic()
            try:
                with self._sessions.begin() as session:
                    cancel = repository.beat(
                        session, self.claim.job_id, self.claim.token, lease_seconds=self._lease_seconds
                    )
            except LeaseLostError:
                self._taken.set()
                return
            except (SQLAlchemyError, OSError) as error:
                # The database is away. Until the lease would have run out there, the job is still ours.
                log.warning("beat_missed", error=type(error).__name__)
                if self.lost():
                    return
                continue
            self._renewed_at = asked
            if cancel:
                self.cancel.set()

    def advance(self, *, stage: str | None, progress: float, events: Iterable[Event], stage_finished: bool) -> None:
        """Write down where the job stands, under the fencing token.

        Raises:
            LeaseLostError: the job is no longer ours.
        """
        with self._sessions.begin() as session:
            repository.advance(
                session,
                self.claim.job_id,
                self.claim.token,
                stage=stage,
                progress=progress,
                events=events,
                stage_finished=stage_finished,
            )
