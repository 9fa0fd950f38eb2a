"""The SQL behind lists of jobs: what people look for, and how much of it there is.

Functions take the caller's session and never commit.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sqlalchemy import ColumnElement, and_, exists, func, select, true
from sqlalchemy.orm import Session

from app.auth import keys
from app.db.models import JobLabelRow, JobRow
from app.hub.access import Caller
from app.jobs.access import visible_to


@dataclass(frozen=True)
class Wanted:
    """What a person looks for in whatever state; empty: everything."""

    model: str = ""
    """Part of the model's name."""
    owner: str | None = None
    """Id of the key that submitted it; empty: none."""
    labels: Mapping[str, str] = field(default_factory=dict)


def begins_with(prefix: str) -> ColumnElement[bool]:
    """The condition on `JobRow` under which a job's id begins with these hexadecimal digits."""
    # Not a range of ids: in the order of some languages "aa" comes after "z".
    return JobRow.id.startswith(prefix, autoescape=True)


def state_counts(session: Session, who: Caller, wanted: Wanted) -> dict[str, int]:
    """How many of the wanted jobs, whatever their state, are in each state."""
    query = select(JobRow.state, func.count()).where(visible_to(who), meets(wanted)).group_by(JobRow.state)
    return {row[0]: row[1] for row in session.execute(query)}


def owners(session: Session) -> dict[str, str]:
    """The names of all keys that jobs may have been submitted with, by their ids."""
    return {row.id: row.name for row, _ in keys.listing(session)}


def meets(wanted: Wanted) -> ColumnElement[bool]:
    """The condition on `JobRow` under which a job is wanted, but for its state."""
    conditions: Sequence[ColumnElement[bool]] = [
        *([JobRow.model.icontains(wanted.model, autoescape=True)] if wanted.model else []),
        *([JobRow.owner == wanted.owner] if wanted.owner is not None else []),
        *(
            exists().where(JobLabelRow.job_id == JobRow.id, JobLabelRow.key == key, JobLabelRow.value == value)
            for key, value in wanted.labels.items()
        ),
    ]
    return and_(true(), *conditions)
