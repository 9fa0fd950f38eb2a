"""Make a directory a commit: first its files become blobs, then one transaction shows them all.

Staging takes long and touches no database; committing is short and touches no file. A kill between the two leaves blobs
that nobody names yet, and the next try finds them.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from sqlalchemy.orm import Session

from app.db.models import CommitRow, RepoRow
from app.hub import directory, repository
from app.hub.card import Card, model_tags
from app.hub.directory import NewRepo
from app.hub.errors import (
    MissedItsGates,
    MovedByAdministrators,
    ProtectedBranch,
    ReadOnlyCopy,
    RepositoryNotFound,
    RevisionNotFound,
)
from app.hub.names import check_path, check_ref_name, check_repo_name
from app.hub.objects import TreeFile, commit_oid, tree_oid
from app.hub.revisions import DEFAULT_BRANCH
from app.storage.blobs import BlobStore

JOB_TAG = "job-"
"""What the tag that names a job's checkpoint begins with."""

StagedFile = TreeFile
"""A file whose bytes are in the store, under its path in the repository to be."""


@dataclass(frozen=True, slots=True)
class Commit:
    """A published revision."""

    repo: str
    oid: str
    """40 hex digits: what clients use as `revision`."""
    parent: str | None
    message: str
    job_id: str | None
    created_at: datetime
    new: bool
    """False where the same content had been published before and nothing was written."""


def stage_directory(store: BlobStore, directory: Path) -> list[StagedFile]:
    """Store every file under `directory`; staging the same directory again stores nothing more.

    Raises:
        BadName: a path that no repository may hold.
        StorageFull: there is no room.
        OSError: a file cannot be read.
    """
    return stage_files(store, directory, (path for path in directory.rglob("*") if not path.is_dir()))


def stage_files(store: BlobStore, directory: Path, paths: Iterable[Path]) -> list[StagedFile]:
    """Store these files of `directory` (all names are checked before the first one is stored); see stage_directory."""
    named = sorted((check_path(path.relative_to(directory).as_posix()), path) for path in paths)
    staged = []
    for name, path in named:
        blob = store.put_file(path)
        staged.append(StagedFile(name, blob.size, blob.sha256, blob.git_oid))
    return staged


def commit_files(
    session: Session,
    repo: str,
    staged: Sequence[StagedFile],
    message: str,
    *,
    ref: str | None = DEFAULT_BRANCH,
    tag: str | None = None,
    job_id: str | None = None,
    private: bool = False,
    gated: str | None = None,
    owner: str = "",
    author: str = "",
    tags: Collection[str] | None = None,
) -> Commit:
    """Publish the files as the whole content of a new commit, in the caller's transaction.

    The repository is made if it is missing (`private`, `gated` and `owner` count only then). `tags` are what lists find
    the model by once it is at `main` (default: what the files' names tell). `ref` is the branch that moves to the
    commit; None leaves every branch where it is (a job that missed a gate) and puts the commit on top of `main`.
    Publishing again what the branch already holds, or what the job has already published, writes no commit.

    Raises:
        BadName: a name that the hub does not allow.
        ProtectedBranch: `main` of a repository that a job has published to, and no job publishes now.
        ReadOnlyCopy: the repository is a copy of an upstream hub's.
        ValueError: nothing staged, or two files of one path.
    """
    check_repo_name(repo)
    for name in (ref, tag):
        if name is not None:
            check_ref_name(name)
    if not staged or len({check_path(file.path) for file in staged}) != len(staged):
        raise ValueError("a commit needs at least one file, and each path once")
    row = directory.lock_or_create_repo(session, repo, NewRepo(private=private, gated=gated, owner=owner))
    if row.upstream is not None:
        raise ReadOnlyCopy(repo, row.upstream)
    head = repository.commit_of_ref(session, row.id, "branch", ref or DEFAULT_BRANCH)
    if ref == DEFAULT_BRANCH and job_id is None:
        check_unprotected(session, row)
    tree = tree_oid(staged)
    published = _already_published(session, row, tree, head=head, job_id=job_id)
    commit = published or write_commit(
        session, row, staged, tree=tree, parent=head, message=message, author=author, job_id=job_id
    )
    if ref is not None and published is None:
        repository.move_ref(session, row, "branch", ref, commit)
        if ref == DEFAULT_BRANCH:
            directory.main_moved(session, row, model_tags(staged, Card()) if tags is None else tags)
    if tag is not None:
        repository.move_ref(session, row, "tag", tag, commit)
    return Commit(repo, commit.oid, commit.parent, commit.message, commit.job_id, commit.created_at, published is None)


def begin_repo(session: Session, repo: RepoRow, *, author: str) -> CommitRow:
    """Give a new repository its first commit, without files, so that `main` is there to be read and committed to."""
    commit = write_commit(
        session, repo, [], tree=tree_oid([]), parent=None, message="initial commit", author=author, job_id=None
    )
    repository.move_ref(session, repo, "branch", DEFAULT_BRANCH, commit)
    return commit


def check_unprotected(session: Session, repo: RepoRow) -> None:
    """Let pass whoever wants to move `main` without a job's verdict.

    Raises:
        ProtectedBranch: a job has published to the repository.
    """
    if repository.has_commit_of_a_job(session, repo.id):
        raise ProtectedBranch(repo.name)


def move_branch(
    session: Session, repo_name: str, branch: str, oid: str, *, tags: Collection[str], by_admin: bool
) -> None:
    """Let a branch point to a commit that the repository has, such as an older one; made if it was missing.

    `main` of a repository that jobs publish to goes to what has passed only, and by an administrator only. `tags` are
    what lists find the model by if the branch is `main`.

    Raises:
        RepositoryNotFound, RevisionNotFound: removed meanwhile.
        MovedByAdministrators: it is such a `main`, and the caller is no administrator.
        MissedItsGates: it is such a `main`, and the commit has not passed.
    """
    repo = directory.lock_repo(session, repo_name)
    if repo is None:
        raise RepositoryNotFound(repo_name)
    commit = repository.find_commit(session, repo.id, oid)
    if commit is None:
        raise RevisionNotFound(repo_name, oid)
    if branch == DEFAULT_BRANCH and repository.has_commit_of_a_job(session, repo.id):
        if not by_admin:
            raise MovedByAdministrators(repo.name)
        if repository.verdicts(session, [commit]).get(commit.id) != "pass":
            raise MissedItsGates(repo.name, commit.oid)
    repository.move_ref(session, repo, "branch", branch, commit)
    if branch == DEFAULT_BRANCH:
        directory.main_moved(session, repo, tags)


def _already_published(
    session: Session, repo: RepoRow, tree: str, *, head: CommitRow | None, job_id: str | None
) -> CommitRow | None:
    # A job's own commit counts even where the branch has moved on since: a late retry must not move it back.
    candidates = [*(repository.commits_of_job(session, repo.id, job_id) if job_id else []), *([head] if head else [])]
    return next((commit for commit in candidates if tree_oid(repository.files(session, commit)) == tree), None)


def write_commit(
    session: Session,
    repo: RepoRow,
    staged: Sequence[StagedFile],
    *,
    tree: str,
    parent: CommitRow | None,
    message: str,
    author: str,
    job_id: str | None,
) -> CommitRow:
    """Write the commit, or find it where the same one has been written before; no ref moves."""
    parent_oid = parent.oid if parent else None
    oid = commit_oid(tree, parent_oid, message)
    # Two jobs of one recipe that both miss a gate make the same commit: it stays the first one's.
    return repository.find_commit(session, repo.id, oid) or repository.add_commit(
        session, repo, oid=oid, parent=parent_oid, message=message, author=author, job_id=job_id, files=staged
    )
