"""The SQL about the queue as a whole: whose message is to be sent again, how long it is and how old.

Functions take the caller's session and never commit. States are changed by `app.jobs.repository` alone.
"""

from datetime import datetime

from sqlalchemy import Update, and_, func, or_, select, update
from sqlalchemy.orm import Session

from app.db.clock import db_now
from app.db.models import JobRow
from app.jobs.states import State


def unannounced(session: Session, *, republish_seconds: float, limit: int = 100) -> dict[str, int | None]:
    """Queued jobs whose message was never sent, or was sent so long ago that it may be lost; marks them as sent now.

    Each with the memory that it needs, which its queue depends on. The wait doubles with every announcement (at most
    64-fold), so that a long queue is not flooded with duplicates.
    """
    waits = [(n, republish_seconds * 2**n) for n in range(1, 7)]
    long_ago = or_(
        and_(JobRow.published_count <= 1, JobRow.published_at < db_now(-republish_seconds)),
        *(and_(JobRow.published_count == n + 1, JobRow.published_at < db_now(-wait)) for n, wait in waits),
        and_(JobRow.published_count > 7, JobRow.published_at < db_now(-waits[-1][1])),
    )
    due = (
        select(JobRow.id)
        .where(JobRow.state == State.QUEUED, or_(JobRow.published_at.is_(None), long_ago))
        .order_by(JobRow.created_at)
        .limit(limit)
    )
    sent = _announced().where(JobRow.id.in_(due)).returning(JobRow.id, JobRow.required_memory_bytes)
    return {row.id: row.required_memory_bytes for row in session.execute(sent)}


def mark_announced(session: Session, job_id: str) -> None:
    """Note that the job's message has just been sent."""
    session.execute(_announced().where(JobRow.id == job_id, JobRow.state == State.QUEUED))


def _announced() -> Update:
    return (
        update(JobRow)
        .values(published_at=db_now(), published_count=JobRow.published_count + 1)
        .execution_options(synchronize_session=False)
    )


def count_queued(session: Session, owner: str) -> int:
    """How many jobs of this API key wait."""
    query = select(func.count()).where(JobRow.owner == owner, JobRow.state == State.QUEUED)
    return session.scalar(query) or 0


def queue_age_seconds(session: Session) -> float:
    """How long the oldest queued job has waited since it was made, by the database's clock; 0 without one."""
    oldest = select(JobRow.created_at).where(JobRow.state == State.QUEUED).order_by(JobRow.created_at).limit(1)
    row = session.execute(select(oldest.scalar_subquery(), db_now())).one()
    since: datetime | None = row[0]
    return 0.0 if since is None else max(0.0, (row[1] - since).total_seconds())


def queued_needs(session: Session) -> dict[int | None, int]:
    """How many jobs wait for a GPU of so much memory (None: of any)."""
    query = (
        select(JobRow.required_memory_bytes, func.count())
        .where(JobRow.state == State.QUEUED)
        .group_by(JobRow.required_memory_bytes)
    )
    return {row[0]: row[1] for row in session.execute(query)}


def state_counts(session: Session) -> dict[str, int]:
    """How many jobs are in each state: the queue's metrics."""
    rows = session.execute(select(JobRow.state, func.count()).group_by(JobRow.state)).all()
    return {row[0]: row[1] for row in rows}
