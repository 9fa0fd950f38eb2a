"""The SQL about workers: who has been seen, and with how much memory.

Functions take the caller's session and never commit. Nothing is decided by it: a job is taken by a claim, and lost by
a lease. It tells people whether anybody can take theirs.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import case, delete, func, select, update
from sqlalchemy.orm import Session

from app.db.clock import db_now
from app.db.models import WorkerRow

SEEN_EVERY_SECONDS: Final = 20.0
_THERE_SECONDS: Final = 3 * SEEN_EVERY_SECONDS
_FORGOTTEN_SECONDS: Final = 86400.0


@dataclass(frozen=True)
class Workers:
    """Workers of the same memory, in bytes; None: they take every job."""

    memory_bytes: int | None
    count: int


@dataclass(frozen=True)
class KnownWorkers:
    """Workers of the same memory, in bytes, that were there within a day; None: they take every job."""

    memory_bytes: int | None
    there: int
    """How many of them are there now."""
    seen_at: datetime


def seen(session: Session, name: str, memory_bytes: int | None) -> None:
    """Note that a worker is there; to be said again every `SEEN_EVERY_SECONDS`."""
    known = session.execute(
        update(WorkerRow)
        .where(WorkerRow.name == name)
        .values(seen_at=db_now(), memory_bytes=memory_bytes)
        .returning(WorkerRow.name)
    ).one_or_none()
    if known is None:
        session.add(WorkerRow(name=name, memory_bytes=memory_bytes))
        session.execute(delete(WorkerRow).where(WorkerRow.seen_at < db_now(-_FORGOTTEN_SECONDS)))


def gone(session: Session, name: str) -> None:
    """Note that a worker has left."""
    session.execute(delete(WorkerRow).where(WorkerRow.name == name))


def there(session: Session) -> list[Workers]:
    """The workers that were seen lately, by their memory: those that take every job, then the largest first."""
    query = (
        select(WorkerRow.memory_bytes, func.count())
        .where(WorkerRow.seen_at > db_now(-_THERE_SECONDS))
        .group_by(WorkerRow.memory_bytes)
    )
    found = [Workers(row[0], row[1]) for row in session.execute(query)]
    return sorted(found, key=lambda each: (each.memory_bytes is not None, -(each.memory_bytes or 0)))


def known(session: Session) -> list[KnownWorkers]:
    """The workers of the last day by their memory, those that have gone silent too, in no order."""
    is_there = case((WorkerRow.seen_at > db_now(-_THERE_SECONDS), 1), else_=0)
    query = (
        select(WorkerRow.memory_bytes, func.sum(is_there), func.max(WorkerRow.seen_at))
        .where(WorkerRow.seen_at > db_now(-_FORGOTTEN_SECONDS))
        .group_by(WorkerRow.memory_bytes)
    )
    return [KnownWorkers(row[0], row[1], row[2]) for row in session.execute(query)]
