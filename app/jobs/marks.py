"""How far jobs are: what everybody who waits for one asks for, again and again.

Functions take the caller's session and never commit.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Self

from sqlalchemy import ColumnElement, bindparam, select, true
from sqlalchemy.orm import Session

from app.db.models import JobRow
from app.jobs.states import FINAL


@dataclass(frozen=True)
class Mark:
    """How far a job is: it has changed for a client exactly if its mark differs."""

    job_id: str
    version: int
    events: int
    final: bool

    @classmethod
    def of(cls, row: JobRow) -> Self:
        """The mark of a row that has just been read."""
        return cls(row.id, row.version, row.event_count, row.state in FINAL)

    @property
    def etag(self) -> str:
        """Strong: any change that a client can see counts the version up."""
        return f'"{self.job_id}-{self.version}"'


_MARKS: Final = select(JobRow.id, JobRow.version, JobRow.event_count, JobRow.state)
_MARK: Final = _MARKS.where(JobRow.id == bindparam("asked"))
"""What every poll asks for, so that the statement is there already."""


def read(session: Session, job_id: str, *, where: ColumnElement[bool] | None = None) -> Mark | None:
    """How far the job is, or None: there is none, or it does not meet the condition `where`."""
    row = session.execute(_MARK if where is None else _MARK.where(where), {"asked": job_id}).one_or_none()
    return None if row is None else Mark(row.id, row.version, row.event_count, row.state in FINAL)


def read_all(session: Session, job_ids: Iterable[str], *, where: ColumnElement[bool] | None = None) -> dict[str, Mark]:
    """How far these jobs are: what everybody who waits for one of them asks for, in one query."""
    rows = session.execute(_MARKS.where(JobRow.id.in_(list(job_ids)), true() if where is None else where))
    return {row.id: Mark(row.id, row.version, row.event_count, row.state in FINAL) for row in rows}
