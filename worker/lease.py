"""Holding a job: the heartbeat that renews the lease, in a thread of its own, whatever else the worker is busy with."""

import threading
import time
from collections.abc import Iterable
from types import TracebackType
from typing import Self

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from app.jobs import repository
from app.jobs.repository import Claim, Event, LeaseLostError

log = structlog.get_logger(__name__)


class AttemptEndedError(Exception):
    """The attempt ends before its work does: the job is to be cancelled, or this worker stops."""


class Lease:
    """A claimed job. While the context is open the lease is renewed; `lost` and `cancel` say what the beats learned."""

    def __init__(
        self, sessions: sessionmaker[Session], claim: Claim, *, heartbeat_seconds: float, lease_seconds: float
    ) -> None:
        self.claim = claim
        self.lost = threading.Event()
        self.cancel = threading.Event()
        self._sessions = sessions
        self._every = heartbeat_seconds
        self._lease_seconds = lease_seconds
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._beat_until_closed, name=f"beat-{claim.job_id}", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._closed.set()
        self._thread.join()

    def _beat_until_closed(self) -> None:
        last_renewed = time.monotonic()
        while not self._closed.wait(self._every):
            asked = time.monotonic()
            try:
                with self._sessions.begin() as session:
                    cancel = repository.beat(
                        session, self.claim.job_id, self.claim.token, lease_seconds=self._lease_seconds
                    )
            except LeaseLostError:
                self.lost.set()
                return
            except (SQLAlchemyError, OSError) as error:
                # The database is away. Until the lease would have run out there, the job is still ours.
                log.warning("beat_missed", job_id=self.claim.job_id, error=type(error).__name__)
                if time.monotonic() - last_renewed > self._lease_seconds:
                    self.lost.set()
                    return
                continue
            last_renewed = asked
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
