"""Mends what processes that died left behind: announces queued jobs again and takes expired leases back.

Any number of reconcilers may run at once; every step is a compare-and-set.
"""

import threading
from collections.abc import Callable
from typing import Final

import structlog
from prometheus_client import Counter
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from app import tracing
from app.db.models import JobRow
from app.jobs import queue, repository
from app.jobs.states import FINAL

log = structlog.get_logger(__name__)

LEASES_EXPIRED: Final = Counter("streamline_leases_expired", "Jobs taken back from workers that had gone silent")
ANNOUNCED_AGAIN: Final = Counter("streamline_announced_again", "Queued jobs whose message was sent by the reconciler")


def reconcile_once(
    sessions: sessionmaker[Session],
    enqueue: Callable[[str, int | None], object],
    *,
    max_attempts: int,
    republish_seconds: float,
) -> tuple[list[str], list[str]]:
    """One round: returns the ids whose lease was taken back and the ids that were announced again.

    `enqueue` is called with a job's id and the memory that it needs.
    """
    with sessions.begin() as session:
        expired = repository.expire_leases(session, max_attempts=max_attempts)
        ended = [job for job_id in expired if (job := _ended(session, job_id))] if tracing.enabled() else []
    with sessions.begin() as session:
        announced = queue.unannounced(session, republish_seconds=republish_seconds)
    for job in ended:
        tracing.job_ended(job.trace, job.id, began=job.created_at, state=job.state)
    for job_id, required_bytes in announced.items():
        enqueue(job_id, required_bytes)
    LEASES_EXPIRED.inc(len(expired))
    ANNOUNCED_AGAIN.inc(len(announced))
    if expired or announced:
        log.info("reconciled", expired=expired, announced=list(announced))
    return expired, list(announced)


def _ended(session: Session, job_id: str) -> JobRow | None:
    row = repository.get(session, job_id)
    return row if row is not None and row.state in FINAL else None


def run_reconciler(
    sessions: sessionmaker[Session],
    enqueue: Callable[[str, int | None], object],
    stop: threading.Event,
    *,
    every_seconds: float,
    max_attempts: int,
    republish_seconds: float,
) -> None:
    """Reconcile until `stop` is set; a database or broker that is away is tried again in the next round."""
    while not stop.is_set():
        try:
            reconcile_once(sessions, enqueue, max_attempts=max_attempts, republish_seconds=republish_seconds)
        except (SQLAlchemyError, ConnectionError, OSError) as error:
            log.warning("reconciler_retries", error=type(error).__name__)
        stop.wait(every_seconds)
