"""From what a client names to a commit: branch, tag, commit, or the unambiguous beginning of a commit."""

import re

from sqlalchemy.orm import Session

from app.db.models import CommitRow, RepoRow
from app.hub import directory, repository
from app.hub.errors import BadName, EntryNotFound, RepositoryNotFound, RevisionNotFound
from app.hub.names import check_path, check_ref_name, check_repo_name, is_commit
from app.hub.objects import TreeFile

DEFAULT_BRANCH = "main"
SHORTEST_PREFIX = 7
"""Digits of a commit that may stand for it."""
_PREFIX = re.compile(rf"[0-9a-f]{{{SHORTEST_PREFIX},39}}")


def repo_named(session: Session, name: str) -> RepoRow:
    """The repository.

    Raises:
        RepositoryNotFound: there is none, or there can be none of this name.
    """
    try:
        row = directory.find_repo(session, check_repo_name(name))
    except BadName:
        row = None
    if row is None:
        raise RepositoryNotFound(name)
    return row


def resolve(session: Session, repo: RepoRow, revision: str) -> CommitRow:
    """The commit that `revision` names; a branch wins over a tag, and both over the beginning of a commit.

    Raises:
        RevisionNotFound: it names nothing, or the beginning of more than one commit.
    """
    commit: CommitRow | None
    if is_commit(revision):
        commit = repository.find_commit(session, repo.id, revision)
    else:
        commit = _commit_of_name(session, repo, revision)
    if commit is None:
        raise RevisionNotFound(repo.name, revision)
    return commit


def _commit_of_name(session: Session, repo: RepoRow, name: str) -> CommitRow | None:
    try:
        check_ref_name(name)  # what cannot be a name (a NUL among others) does not reach the database
    except BadName:
        return None
    commit = repository.commit_of_ref(session, repo.id, "branch", name)
    commit = commit or repository.commit_of_ref(session, repo.id, "tag", name)
    if commit is None and _PREFIX.fullmatch(name):
        candidates = repository.commits_by_prefix(session, repo.id, name)
        commit = candidates[0] if len(candidates) == 1 else None
    return commit


def file_at(session: Session, repo: RepoRow, commit: CommitRow, path: str) -> TreeFile:
    """A file of the commit.

    Raises:
        EntryNotFound: there is none, or there can be none of this name.
    """
    try:
        file = repository.find_file(session, commit, check_path(path))
    except BadName:
        file = None
    if file is None:
        raise EntryNotFound(repo.name, commit.oid, path)
    return file
