"""The revisions of a model as its page lists them: one is gone back to by what its job made of the model."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session

from app.core.windows import runs
from app.db.models import CommitRow, JobRow
from app.hub import repository
from app.hub.access import Caller
from app.hub.publishing import JOB_TAG
from app.hub.revisions import DEFAULT_BRANCH
from app.jobs import repository as jobs
from app.jobs.access import visible_to
from app.report.plots.windows import named

_JOB_SHOWN = 12  # characters of a job's id, as everywhere on the pages


@dataclass(frozen=True)
class Revision:
    """A commit with everything that points to it, and the job that made it."""

    commit: CommitRow
    branches: Sequence[str]
    """Without the default one."""
    tags: Sequence[str]
    is_main: bool
    verdict: str | None
    job: JobRow | None
    """None where no job made it, or one that the caller may not know of."""

    @property
    def metrics(self) -> Mapping[str, Any]:
        """What the job has measured; empty where there is no job to show."""
        return (self.job.result or {}).get("metrics") or {} if self.job else {}

    @property
    def removed(self) -> str:
        """`layers 5 to 12`; empty where that is not known."""
        layers = (self.job.result or {}).get("removed_layers") if self.job else None
        return " and ".join(named(run) for run in runs(sorted(layers or [])))

    @property
    def size(self) -> int | None:
        """Bytes of the weights."""
        found: int | None = (self.metrics.get("checkpoint_bytes") or {}).get("pruned")
        return found

    @property
    def perplexity_ratio(self) -> float | None:
        """Of the pruned model over the dense one."""
        found: float | None = self.metrics.get("perplexity_ratio")
        return found


def short(tag: str) -> str:
    """A tag as the page shows it: that of a job with the beginning of the job's id."""
    return tag[: len(JOB_TAG) + _JOB_SHOWN] if tag.startswith(JOB_TAG) else tag


def revisions(
    session: Session,
    who: Caller,
    repo_id: int,
    refs: Sequence[tuple[str, str, str]],
    history: Sequence[CommitRow],
    *,
    limit: int,
) -> list[Revision]:
    """Commits that have a name, and those of `history`, newest first: what `main` left behind is there too.

    Args:
        refs: (kind, name, commit oid) of the repository's branches and tags.
        history: commits of the repository to list besides.
        limit: how many of the newest commits with a name are listed.
    """
    found = {row.id: row for row in [*history, *repository.named_commits(session, repo_id, limit=limit)]}
    shown = [found[id_] for id_ in sorted(found, reverse=True)]
    verdicts = repository.verdicts(session, shown)
    made = jobs.among(session, {row.job_id for row in shown if row.job_id}, where=visible_to(who))

    called: dict[tuple[str, str], list[str]] = defaultdict(list)
    for kind, name, oid in refs:
        called[kind, oid].append(name)

    def names(kind: str, commit: CommitRow) -> list[str]:
        return called.get((kind, commit.oid), [])

    return [
        Revision(
            commit=row,
            branches=[name for name in names("branch", row) if name != DEFAULT_BRANCH],
            tags=names("tag", row),
            is_main=DEFAULT_BRANCH in names("branch", row),
            verdict=verdicts.get(row.id),
            job=made.get(row.job_id) if row.job_id else None,
        )
        for row in shown
    ]
