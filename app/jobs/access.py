"""Which jobs a caller may know of: those whose every repository they may know of, and their own.

A job's name, events, report and files tell what it was made from and for. To whom one of its repositories is missing,
the job is missing too. The rules about repositories are those of `app.hub.access`, asked anew each time, so that a
grant and a repository that is closed later count at once. A private repository that was removed stays private here.
"""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import ColumnElement, case, exists, func, or_, select, true
from sqlalchemy.orm import Session

from app.db.models import JobRepoRow, JobRow, RepoGrantRow, RepoRow
from app.hub.access import Caller


def note_repositories(session: Session, job_id: str, spec: Mapping[str, Any]) -> None:
    """Note which repositories the job names, and which of them are private at this moment."""
    model = spec["model"]["repo"]
    rivals = [name.partition("@")[0] for name in spec["benchmark"].get("rivals") or ()]
    names = dict.fromkeys([model, spec["output"]["repo"], *rivals])
    private = set(session.scalars(select(RepoRow.name).where(RepoRow.name.in_(names), RepoRow.private)))
    # What comes out of a private model will be private.
    session.add_all(JobRepoRow(job_id=job_id, name=name, private=name in private or model in private) for name in names)
    session.flush()


def visible_to(who: Caller) -> ColumnElement[bool]:
    """The condition on `JobRow` under which the caller may know of the job."""
    if who.sees_all:
        return true()
    granted = exists().where(RepoGrantRow.repo_id == RepoRow.id, RepoGrantRow.key_id == who.key)
    unknown = RepoRow.private & (RepoRow.owner != who.key) & ~granted
    # A repository that took the name later is another one; the job's own output is made when the job ends.
    ended = func.coalesce(JobRow.finished_at, JobRow.created_at)
    is_output = JobRepoRow.name == JobRow.spec["output"]["repo"].as_string()
    known_since = case((is_output, ended), else_=JobRow.created_at)
    removed = RepoRow.id.is_(None) | (RepoRow.created_at > known_since)
    closed = (
        select(JobRepoRow.job_id)
        .outerjoin(RepoRow, RepoRow.name == JobRepoRow.name)
        .where(JobRepoRow.job_id == JobRow.id, or_(unknown, removed & JobRepoRow.private))
        .correlate(JobRow)
    )
    return ~closed.exists() | ((JobRow.owner == who.key) & (JobRow.owner != ""))
