"""Where a model comes from: the job that made it, the model that it started from, and so on up to the dense one."""

from dataclasses import dataclass

from sqlalchemy.orm import Session

from app.hub import repository as commits
from app.hub.access import Caller, readable
from app.hub.errors import GatedRepository, RepositoryNotFound
from app.jobs import repository
from app.jobs.access import visible_to

_MOST_GENERATIONS = 32


@dataclass(frozen=True)
class Ancestor:
    """A model that another one was made from."""

    repo: str | None
    """None where the caller may not know of it."""
    revision: str
    job_id: str | None
    """The job that made the younger model out of this one; None where the caller may not know of it."""


def lineage(session: Session, who: Caller, job_id: str | None) -> list[Ancestor]:
    """The ancestors of what a job made, the nearest first; empty for a model that no job made."""
    found: list[Ancestor] = []
    while job_id is not None and len(found) < _MOST_GENERATIONS:
        job = repository.get(session, job_id)
        if job is None:
            break
        source = job.spec["model"]
        ancestor_job: str | None = None
        name: str | None = source["repo"]
        try:
            repo = readable(session, who, source["repo"], files=True)
            commit = commits.find_commit(session, repo.id, source["revision"])
            ancestor_job = commit.job_id if commit else None
        except (RepositoryNotFound, GatedRepository):
            name = None
        shown = repository.get(session, job_id, where=visible_to(who)) is not None
        found.append(Ancestor(name, source["revision"], job_id if shown else None))
        job_id = ancestor_job
    return found
