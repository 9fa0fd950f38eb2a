"""All the SQL about copies of an upstream hub. Never commits."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.db.models import CommitFileRow, CommitRow, RepoRow
from app.hub import directory, repository
from app.hub.access import Caller
from app.hub.directory import NewRepo
from app.hub.errors import RevisionNotFound
from app.hub.objects import TreeFile
from app.hub.repository import RefKind
from app.hub.revisions import DEFAULT_BRANCH, resolve
from app.hub.upstream.downloads import Source
from app.storage.register import expect


@dataclass(frozen=True, slots=True)
class Known:
    """What is here under a name and a revision."""

    upstream: str | None
    """Address of the hub that the repository is a copy of; None: it is our own, or there is none."""
    exists: bool
    hidden: bool
    """Whether it exists, and must look to who asks as if it did not."""
    commit: str | None
    """The commit that the revision names here."""


def known(session: Session, name: str, revision: str, who: Caller) -> Known:
    """What is here under this name and revision."""
    repo, granted = directory.find_for(session, name, who.key)
    if repo is None:
        return Known(None, exists=False, hidden=False, commit=None)
    hidden = not who.may_know_of(repo, granted=granted)
    try:
        return Known(repo.upstream, exists=True, hidden=hidden, commit=resolve(session, repo, revision).oid)
    except RevisionNotFound:
        return Known(repo.upstream, exists=True, hidden=hidden, commit=None)


def copied_files(session: Session, name: str, oid: str) -> list[TreeFile] | None:
    """The files of a commit that has been copied; None where it has not."""
    repo = directory.find_repo(session, name)
    commit = repository.find_commit(session, repo.id, oid) if repo else None
    return repository.files(session, commit) if commit else None


def source_of(session: Session, upstream: str, sha256: str) -> Source | None:
    """Where the upstream hub has these bytes, as some copy says; None where none does."""
    row = session.execute(
        select(RepoRow.name, CommitRow.oid, CommitFileRow.path, CommitFileRow.size)
        .join(CommitRow, CommitRow.id == CommitFileRow.commit_id)
        .join(RepoRow, RepoRow.id == CommitRow.repo_id)
        .where(CommitFileRow.sha256 == sha256, RepoRow.upstream == upstream)
        .order_by(CommitRow.id.desc())
        .limit(1)
    ).first()
    return None if row is None else Source(row[0], row[1], row[2], sha256, row[3])


def copy_of(session: Session, name: str, upstream: str, *, private: bool, gated: bool) -> RepoRow | None:
    """The copy's repository, locked, made where it is missing; None where the name is our own by now.

    What is closed upstream is closed here too. What is opened there stays closed here, until somebody opens it.
    """
    new = NewRepo(private=private, gated="manual" if gated else None, upstream=upstream)
    repo = directory.lock_or_create_repo(session, name, new)
    if repo.upstream != upstream:
        return None
    changes = ({"private": True} if private and not repo.private else {}) | (
        {"gated": "manual"} if gated and not repo.gated else {}
    )
    if changes:
        directory.configure(session, repo, changes)
    return repo


def add_copy(session: Session, repo: RepoRow, commit: str, files: Sequence[TreeFile]) -> None:
    """Show a commit of the upstream hub under its own name; bytes of its large files may still be there."""
    if repository.find_commit(session, repo.id, commit) is None:
        expect(session, {file.sha256: file.size for file in files})
        message = f"Copy of {repo.upstream}/{repo.name} at {commit}"
        repository.add_commit(
            session, repo, oid=commit, parent=None, message=message, author="", job_id=None, files=files
        )


def point(session: Session, repo: RepoRow, kind: RefKind, revision: str, commit: str, tags: Sequence[str]) -> None:
    """Let a branch or tag of the copy name the commit; `tags` are what lists find the model by once `main` does."""
    row = repository.find_commit(session, repo.id, commit)
    assert row is not None, "the commit was added before"
    old = repository.commit_of_ref(session, repo.id, kind, revision)
    if old is not None and old.id == row.id:
        return
    repository.move_ref(session, repo, kind, revision, row)
    if revision == DEFAULT_BRANCH:
        directory.main_moved(session, repo, tags)


def forget_ref(session: Session, name: str, revision: str) -> None:
    """The upstream hub has no such branch or tag any more."""
    repo = directory.lock_repo(session, name)
    if repo is not None and repo.upstream is not None:
        repository.delete_ref(session, repo, "branch", revision)
        repository.delete_ref(session, repo, "tag", revision)
