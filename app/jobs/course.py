"""The SQL about how a job has gone so far: of its events those that a picture of it is drawn from.

A long job has a hundred thousand events, and most of them are progress that has been overtaken. Functions take the
caller's session and never commit.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.db.models import JobEventRow

LAST_EVENTS: Final = 200
"""The newest events, of whatever kind: the log begins with them."""
_MARKS: Final = ("state", "stage_started", "stage_finished", "scores", "selected")
_MOST_POINTS: Final = 4000
"""Of each course an engine tells about 200 points; the oldest of a job of very many windows are left out."""
_MOST_MARKS: Final = 1000


@dataclass(frozen=True)
class Course:
    """What has happened to a job, without what nobody looks at."""

    events: Sequence[JobEventRow]
    """In order: stages, states, scores and points of courses since the beginning, and the newest of all kinds."""
    last: int
    """The number of the newest event that counts as seen."""


def course(session: Session, job_id: str, last: int) -> Course:
    """The course of a job up to the event `last`."""
    kept: dict[int, JobEventRow] = {}
    for kinds, limit in ((_MARKS, _MOST_MARKS), (("metric",), _MOST_POINTS), ((), LAST_EVENTS)):
        query = select(JobEventRow).where(JobEventRow.job_id == job_id, JobEventRow.seq <= last)
        if kinds:
            query = query.where(JobEventRow.kind.in_(kinds))
        rows = session.scalars(query.order_by(JobEventRow.seq.desc()).limit(limit))
        kept |= {row.seq: row for row in rows}
    return Course([kept[seq] for seq in sorted(kept)], last)
