"""What can be done with jobs, over the repository. Functions take the caller's session and never commit.

A job that the one who asks (`who`) may not know of does not exist for them; see `app.jobs.access`.
"""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import ColumnElement
from sqlalchemy.orm import Session

from app.auth import keys
from app.db import cursors
from app.db.models import JobRow
from app.errors.requests import QuotaExceeded
from app.errors.resources import JobIsFinal, JobNotFound, JobNotRetryable
from app.hub.access import Caller
from app.jobs import idempotency, marks, queue, repository
from app.jobs.access import note_repositories, visible_to
from app.jobs.idempotency import Reservation
from app.jobs.marks import Mark
from app.jobs.states import State
from app.tracing import new_job

QUEUE_RETRY_AFTER_SECONDS: Final = 30


@dataclass(frozen=True)
class Page:
    """A page of jobs, newest first."""

    rows: Sequence[JobRow]
    next_cursor: str | None


def create(
    session: Session,
    spec: dict[str, Any],
    *,
    owner: str,
    required_memory_bytes: int | None = None,
    reservation: Reservation | None = None,
    request_id: str = "",
) -> JobRow:
    """Make a queued job of a resolved specification; with a reservation, its Idempotency-Key becomes the job's.

    `required_memory_bytes` is of the GPUs that may carry it out; None: any may.

    Raises:
        IdempotencyKeyInFlight: the reservation has run out; nothing may be committed.
        QuotaExceeded: the owner has as many queued jobs as it may have.
    """
    _check_queue(session, owner)
    row = JobRow(
        id=uuid.uuid4().hex,
        state=State.QUEUED,
        spec=spec,
        labels=spec["labels"],
        model=spec["model"]["repo"],
        owner=owner,
        request_id=request_id,
        required_memory_bytes=required_memory_bytes,
        trace=new_job(),
    )
    repository.insert(session, row)
    note_repositories(session, row.id, spec)
    if reservation is not None:
        idempotency.bind(session, reservation, row.id)
    return row


def find(session: Session, job_id: str, who: Caller) -> JobRow:
    """The job.

    Raises:
        JobNotFound: there is none of this id.
    """
    row = repository.get(session, job_id, where=visible_to(who))
    if row is None:
        raise _unknown(job_id)
    return row


def mark(session: Session, job_id: str, who: Caller) -> Mark:
    """How far the job is, without reading all of it.

    Raises:
        JobNotFound: there is none of this id.
    """
    found = marks.read(session, job_id, where=None if who.sees_all else visible_to(who))
    if found is None:
        raise _unknown(job_id)
    return found


def page(
    session: Session,
    who: Caller,
    *,
    state: str | None,
    model: str | None,
    labels: Mapping[str, str],
    cursor: str | None,
    limit: int,
    also: ColumnElement[bool] | None = None,
) -> Page:
    """Jobs, newest first; jobs that come in while a client pages through change no later page.

    `also` is one more condition on `JobRow` that all of them meet.

    Raises:
        InvalidRequest: the cursor is none that this service gave out.
    """
    before = cursors.decode(cursor)
    where = visible_to(who) if also is None else visible_to(who) & also
    rows = repository.page(
        session, state=state, model=model, labels=labels, before=before, where=where, limit=limit + 1
    )
    more = len(rows) > limit
    return Page(rows[:limit], cursors.encode(rows[limit - 1].created_at, rows[limit - 1].id) if more else None)


def cancel(session: Session, job_id: str, who: Caller) -> JobRow:
    """Ask for the job to be cancelled; asking again changes nothing.

    Raises:
        JobNotFound: there is none of this id.
        JobIsFinal: it has ended.
    """
    find(session, job_id, who)
    asked = repository.request_cancel(session, job_id)
    row = find(session, job_id, who)
    if not asked:
        ended = "is cancelled already" if row.state == State.CANCELLED else f"has {row.state}"
        raise JobIsFinal(f"Job {job_id} {ended} and can no longer be cancelled.")
    return row


def retry(session: Session, job_id: str, who: Caller) -> JobRow:
    """Queue a failed or cancelled job again; its finished stages are kept.

    Raises:
        JobNotFound: there is none of this id.
        JobNotRetryable: it has neither failed nor been cancelled.
        QuotaExceeded: its owner has as many queued jobs as it may have.
    """
    _check_queue(session, find(session, job_id, who).owner)
    queued = repository.retry(session, job_id, trace=new_job())
    row = find(session, job_id, who)
    if not queued:
        raise JobNotRetryable(f"Job {job_id} is {row.state}; only a failed or cancelled job can be tried again.")
    return row


def _check_queue(session: Session, owner: str) -> None:
    """Hold the owner's key until the transaction ends, so that two requests at once do not both find the last place."""
    key = keys.lock(session, owner) if owner else None
    limit = key.max_queued_jobs if key else None
    if limit is not None and queue.count_queued(session, owner) >= limit:
        raise QuotaExceeded(
            f"This key may have {limit:,} queued job(s) at a time and has them; wait for one to start, or cancel one.",
            headers={"Retry-After": str(QUEUE_RETRY_AFTER_SECONDS)},
        )


def _unknown(job_id: str) -> JobNotFound:
    return JobNotFound(
        f"There is no job {job_id[:64]!r}; `streamline status` and GET /v1/jobs list those that are, and "
        "GET /v1/jobs?id_prefix= finds one by the beginning of its id.",
        parameter="job_id",
    )
