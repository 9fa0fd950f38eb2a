"""The SQL about jobs, and all of it that moves them. Functions take the caller's session and never commit.

Every write of a worker carries the fencing token that its claim gave it; once the lease is lost the token is old and
the write changes nothing and raises `LeaseLostError`. Times are compared with the database's clock alone.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Update, and_, case, func, or_, select, true, tuple_, update
from sqlalchemy.orm import Session, aliased

from app.db.clock import db_now
from app.db.models import JobLabelRow, JobRow
from app.jobs.event_log import Event, append_events
from app.jobs.states import FINAL, State, Trigger, sources, target
from app.webhooks import outbox


class LeaseLostError(Exception):
    """The job was taken from this worker (lease expired, job cancelled or finished elsewhere); stop at once."""


@dataclass(frozen=True)
class Claim:
    """What a worker got when it took a job."""

    job_id: str
    token: int
    attempt: int
    spec: dict[str, Any]
    request_id: str = ""
    """Of the request that made the job, for the log."""
    trace: str = ""
    """What joins the spans about the job, see `app.tracing`."""
    created_at: datetime | None = None


def _visible(trigger: Trigger) -> Update:
    """An UPDATE of the rows that `trigger` may move, to the state that it leads to, visible to clients."""
    return (
        update(JobRow)
        .where(JobRow.state.in_(sources(trigger)))
        .values(state=target(trigger), version=JobRow.version + 1)
        .execution_options(synchronize_session=False)
    )


_NO_LEASE: dict[str, Any] = {"lease_owner": None, "lease_expires_at": None}


def insert(session: Session, row: JobRow) -> None:
    """Add a new queued job with its labels and its first event."""
    session.add(row)
    session.flush()
    session.add_all(JobLabelRow(job_id=row.id, key=key, value=str(value)) for key, value in row.labels.items())
    append_events(session, row.id, [Event("state", {"state": State.QUEUED})])
    session.refresh(row)


def get(session: Session, job_id: str, *, where: ColumnElement[bool] | None = None) -> JobRow | None:
    """The job as it stands, or None: there is none, or it does not meet the condition `where`."""
    query = select(JobRow).where(JobRow.id == job_id, true() if where is None else where)
    return session.scalar(query.execution_options(populate_existing=True))


def among(session: Session, ids: Collection[str], *, where: ColumnElement[bool]) -> dict[str, JobRow]:
    """Those of these jobs that meet the condition, by their ids."""
    return {row.id: row for row in session.scalars(select(JobRow).where(JobRow.id.in_(ids), where))}


def lock(session: Session, job_id: str) -> None:
    """Let nobody move the job until the transaction ends (SQLite has one writer at a time anyway)."""
    session.execute(select(JobRow.id).where(JobRow.id == job_id).with_for_update())


def page(
    session: Session,
    *,
    state: str | None = None,
    model: str | None = None,
    labels: Mapping[str, str] | None = None,
    before: tuple[datetime, str] | None = None,
    where: ColumnElement[bool] | None = None,
    limit: int,
) -> Sequence[JobRow]:
    """Jobs, newest first, that are older than `before` (creation time and id of the last one seen).

    `where` is a condition on `JobRow` that all of them meet.
    """
    query = (
        select(JobRow)
        .where(true() if where is None else where)
        .order_by(JobRow.created_at.desc(), JobRow.id.desc())
        .limit(limit)
    )
    if state:
        query = query.where(JobRow.state == state)
    if model:
        query = query.where(JobRow.model == model)
    for key, value in (labels or {}).items():
        label = aliased(JobLabelRow)
        query = query.join(label, and_(label.job_id == JobRow.id, label.key == key, label.value == value))
    if before:
        query = query.where(tuple_(JobRow.created_at, JobRow.id) < tuple_(*before))
    return session.scalars(query).all()


# --- the worker's writes -------------------------------------------------------------------------------------------


def claim(
    session: Session, job_id: str, *, owner: str, lease_seconds: float, memory_bytes: int | None = None
) -> Claim | None:
    """Take a queued job, or None: somebody else has it, it is final, it never was, or it is too large.

    It is too large where it needs more than `memory_bytes` of the worker's GPU (None: nothing is).
    """
    need = JobRow.required_memory_bytes
    row = session.execute(
        _visible(Trigger.CLAIM)
        .where(JobRow.id == job_id, true() if memory_bytes is None else or_(need.is_(None), need <= memory_bytes))
        .values(
            attempt=JobRow.attempt + 1,
            fencing_token=JobRow.fencing_token + 1,
            lease_owner=owner,
            lease_expires_at=db_now(lease_seconds),
            started_at=func.coalesce(JobRow.started_at, db_now()),
        )
        .returning(
            JobRow.fencing_token, JobRow.attempt, JobRow.spec, JobRow.request_id, JobRow.trace, JobRow.created_at
        )
    ).one_or_none()
    if row is None:
        return None
    append_events(session, job_id, [Event("state", {"state": State.RUNNING, "attempt": row.attempt})])
    return Claim(job_id, row.fencing_token, row.attempt, row.spec, row.request_id, row.trace, row.created_at)


def _held(job_id: str, token: int) -> Update:
    return (
        update(JobRow)
        .where(JobRow.id == job_id, JobRow.fencing_token == token, JobRow.state == State.RUNNING)
        .execution_options(synchronize_session=False)
    )


def beat(session: Session, job_id: str, token: int, *, lease_seconds: float) -> bool:
    """Renew the lease; True when somebody asked for the job to be cancelled.

    Raises:
        LeaseLostError: the job is no longer this worker's.
    """
    cancel = session.scalar(
        _held(job_id, token).values(lease_expires_at=db_now(lease_seconds)).returning(JobRow.cancel_requested)
    )
    if cancel is None:
        raise LeaseLostError(job_id)
    return bool(cancel)


def advance(
    session: Session,
    job_id: str,
    token: int,
    *,
    stage: str | None,
    progress: float,
    events: Iterable[Event],
    stage_finished: bool = False,
) -> None:
    """Record where the job stands and what happened; a finished stage gives the job its attempts back.

    Raises:
        LeaseLostError: the job is no longer this worker's.
    """
    values: dict[str, Any] = {"stage": stage, "progress": progress, "version": JobRow.version + 1}
    if stage_finished:
        values["failures"] = 0
    if session.scalar(_held(job_id, token).values(values).returning(JobRow.id)) is None:
        raise LeaseLostError(job_id)
    append_events(session, job_id, events)


def succeed(
    session: Session, job_id: str, token: int, *, verdict: str, gates: list[Any], result: dict[str, Any]
) -> None:
    """Finish the job in the same transaction that publishes its checkpoint.

    Raises:
        LeaseLostError: the job is no longer this worker's; roll back.
    """
    _finish(
        session, job_id, token, Trigger.SUCCEED, verdict=verdict, gates=gates, result=result, error=None, progress=1.0
    )


def fail(session: Session, job_id: str, token: int, *, error: dict[str, Any]) -> None:
    """End the job for a reason that another attempt would not change.

    Raises:
        LeaseLostError: the job is no longer this worker's.
    """
    _finish(session, job_id, token, Trigger.FAIL, error=error)


def cancelled(session: Session, job_id: str, token: int) -> None:
    """The worker has stopped the engine of a job that was to be cancelled.

    Raises:
        LeaseLostError: the job is no longer this worker's.
    """
    _finish(session, job_id, token, Trigger.CANCEL)


def _finish(session: Session, job_id: str, token: int, trigger: Trigger, **values: Any) -> None:
    done = session.scalar(
        _visible(trigger)
        # Also where the trigger moves a queued job too: one that was given back is not its former worker's to cancel.
        .where(JobRow.id == job_id, JobRow.fencing_token == token, JobRow.state == State.RUNNING)
        .values(finished_at=db_now(), **_NO_LEASE, **values)
        .returning(JobRow.id)
    )
    if done is None:
        raise LeaseLostError(job_id)
    _append_state(session, job_id, {"state": target(trigger)} | _of_interest(values))


def _append_state(session: Session, job_id: str, data: Mapping[str, Any]) -> None:
    """The event about a new state, and if it is an end, in the same transaction what endpoints are to be told."""
    append_events(session, job_id, [Event("state", data)])
    if data["state"] in FINAL:
        outbox.job_ended(session, job_id)


def _of_interest(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: values[key] for key in ("verdict", "error") if values.get(key) is not None}


def release(session: Session, job_id: str, token: int, *, reason: str) -> None:
    """Give the job back without spending an attempt: this worker is stopping, or may not begin yet.

    Raises:
        LeaseLostError: the job is no longer this worker's.
    """
    given = session.scalar(
        _visible(Trigger.RELEASE)
        .where(JobRow.id == job_id, JobRow.fencing_token == token)
        .values(published_at=None, published_count=0, **_NO_LEASE)
        .returning(JobRow.id)
    )
    if given is None:
        raise LeaseLostError(job_id)
    append_events(session, job_id, [Event("state", {"state": State.QUEUED, "reason": reason})])


def attempt_failed(session: Session, job_id: str, token: int, *, error: dict[str, Any], max_attempts: int) -> bool:
    """Put the job back in the queue, or fail it when its attempts are used up; True when it will be tried again.

    Raises:
        LeaseLostError: the job is no longer this worker's.
    """
    failures = session.scalar(_held(job_id, token).values(failures=JobRow.failures + 1).returning(JobRow.failures))
    if failures is None:
        raise LeaseLostError(job_id)
    if failures >= max_attempts:
        detail = f"{error['detail']} (given up after {failures} attempts)"
        fail(session, job_id, token, error=error | {"detail": detail})
        return False
    session.execute(
        _visible(Trigger.RELEASE)
        .where(JobRow.id == job_id, JobRow.fencing_token == token)
        .values(published_at=None, published_count=0, **_NO_LEASE)
    )
    append_events(session, job_id, [Event("state", {"state": State.QUEUED, "reason": error["detail"]})])
    return True


# --- the client's writes -------------------------------------------------------------------------------------------


def request_cancel(session: Session, job_id: str) -> bool:
    """Cancel a queued job, or ask the worker of a running one to; False when it is final already (or unknown)."""
    cancelled_now = session.scalar(
        _visible(Trigger.CANCEL)
        .where(JobRow.id == job_id, JobRow.state == State.QUEUED)
        .values(cancel_requested=True, finished_at=db_now())
        .returning(JobRow.id)
    )
    if cancelled_now is not None:
        _append_state(session, job_id, {"state": State.CANCELLED})
        return True
    asked = session.execute(
        update(JobRow)
        .where(JobRow.id == job_id, JobRow.state == State.RUNNING)
        .values(cancel_requested=True, version=JobRow.version + case((JobRow.cancel_requested, 0), else_=1))
        .returning(JobRow.id)
        .execution_options(synchronize_session=False)
    ).one_or_none()
    return asked is not None


def retry(session: Session, job_id: str, *, trace: str = "") -> bool:
    """Queue a failed or cancelled job again, with its attempts counted anew; False when it is neither.

    `trace` joins the spans from now on, if there is any (see `app.tracing`).
    """
    queued = session.scalar(
        _visible(Trigger.RETRY)
        .where(JobRow.id == job_id)
        .values(
            cancel_requested=False,
            failures=0,
            error=None,
            finished_at=None,
            published_at=None,
            published_count=0,
            fencing_token=JobRow.fencing_token + 1,
            trace=trace or JobRow.trace,
        )
        .returning(JobRow.id)
    )
    if queued is None:
        return False
    append_events(session, job_id, [Event("state", {"state": State.QUEUED, "reason": "retried"})])
    return True


# --- the reconciler's ----------------------------------------------------------------------------------------------


def expire_leases(session: Session, *, max_attempts: int) -> list[str]:
    """Take the jobs of silent workers back; returns their ids.

    A job whose cancel was asked for ends cancelled; one whose attempts are used up ends failed; others are queued.
    """
    overdue = session.execute(
        select(JobRow.id, JobRow.cancel_requested, JobRow.failures, JobRow.stage, JobRow.fencing_token).where(
            JobRow.state == State.RUNNING, JobRow.lease_expires_at < db_now()
        )
    ).all()
    taken = []
    for row in overdue:
        poisoned = row.failures + 1 >= max_attempts
        values: dict[str, Any]
        if row.cancel_requested:
            trigger, values = Trigger.CANCEL, {"finished_at": db_now()}
        elif poisoned:
            detail = (
                f"The worker vanished {row.failures + 1} times without finishing a stage; look at its memory and its "
                f"log, then POST /v1/jobs/{row.id}/retry."
            )
            error = {"code": "worker_lost", "detail": detail, "stage": row.stage}
            trigger, values = Trigger.FAIL, {"finished_at": db_now(), "error": error}
        else:
            trigger, values = Trigger.EXPIRE, {"published_at": None, "published_count": 0}
        # The same conditions again: a beat may have come in between the two statements.
        gone = session.scalar(
            _visible(trigger)
            .where(
                JobRow.id == row.id,
                JobRow.state == State.RUNNING,
                JobRow.fencing_token == row.fencing_token,
                JobRow.lease_expires_at < db_now(),
            )
            .values(failures=JobRow.failures + 1, fencing_token=JobRow.fencing_token + 1, **_NO_LEASE, **values)
            .returning(JobRow.id)
        )
        if gone is not None:
            _append_state(session, row.id, {"state": target(trigger), "reason": "the worker's lease ran out"})
            taken.append(row.id)
    return taken


def forfeit_leases(session: Session) -> None:
    """Let every lease run out now: for a start that knows no worker can be alive."""
    session.execute(
        update(JobRow)
        .where(JobRow.state == State.RUNNING)
        .values(lease_expires_at=db_now(-1.0))
        .execution_options(synchronize_session=False)
    )
