"""The SQL about what has happened to jobs. Functions take the caller's session and never commit."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from app.db.models import JobEventRow, JobRow


@dataclass(frozen=True)
class Event:
    """Something that happened, before it has a number."""

    kind: str
    data: Mapping[str, Any]


def append_events(session: Session, job_id: str, events: Iterable[Event]) -> None:
    """Number the events and add them; the counter's UPDATE locks the job's row, so numbers have no gaps or twins."""
    pending = list(events)
    if not pending:
        return
    last = session.scalar(
        update(JobRow)
        .where(JobRow.id == job_id)
        .values(event_count=JobRow.event_count + len(pending))
        .returning(JobRow.event_count)
        .execution_options(synchronize_session=False)
    )
    assert last is not None, "events belong to a job"
    first = last - len(pending) + 1
    session.add_all(
        JobEventRow(job_id=job_id, seq=first + n, kind=event.kind, data=dict(event.data))
        for n, event in enumerate(pending)
    )
    session.flush()


def events_after(session: Session, job_id: str, seq: int, *, limit: int) -> Sequence[JobEventRow]:
    """The job's events with a number greater than `seq`, in order."""
    return session.scalars(
        select(JobEventRow)
        .where(JobEventRow.job_id == job_id, JobEventRow.seq > seq)
        .order_by(JobEventRow.seq)
        .limit(limit)
    ).all()
