"""All the SQL about what a repository holds: commits, files, refs. Functions never commit.

A commit and its files are written once and never changed; only refs move.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict
from typing import Literal

from sqlalchemy import Select, delete, exists, func, insert, literal, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session, aliased

from app.db.clock import db_now
from app.db.models import BlobRow, CommitFileRow, CommitRemovalRow, CommitRow, JobRow, RefRow, RepoRow, UploadRow
from app.hub.objects import TreeFile
from app.storage.blobs import Blob
from app.storage.register import name_blobs

RefKind = Literal["branch", "tag"]
_IN_BATCH = 500


def commit_of_ref(session: Session, repo_id: int, kind: RefKind, name: str) -> CommitRow | None:
    """The commit that a branch or a tag points to, or None."""
    return session.scalar(
        select(CommitRow)
        .join(RefRow, RefRow.commit_id == CommitRow.id)
        .where(RefRow.repo_id == repo_id, RefRow.kind == kind, RefRow.name == name)
    )


def branch_head(session: Session, repo: RepoRow, branch: str) -> CommitRow | None:
    """The newest commit of a branch that somebody named, whatever they wrote; None where there is none."""
    return None if "\0" in branch else commit_of_ref(session, repo.id, "branch", branch)


def heads(session: Session, repo_ids: Collection[int], branch: str) -> dict[int, CommitRow]:
    """The commit that `branch` points to in each of these repositories that has such a branch."""
    rows = session.execute(
        select(RefRow.repo_id, CommitRow)
        .join(CommitRow, CommitRow.id == RefRow.commit_id)
        .where(RefRow.repo_id.in_(repo_ids), RefRow.kind == "branch", RefRow.name == branch)
    )
    return dict(iter(rows))


def find_commit(session: Session, repo_id: int, oid: str) -> CommitRow | None:
    """The repository's commit of this name, or None."""
    return session.scalar(select(CommitRow).where(CommitRow.repo_id == repo_id, CommitRow.oid == oid))


def commits_by_prefix(session: Session, repo_id: int, prefix: str) -> Sequence[CommitRow]:
    """At most two commits whose names begin with `prefix`: enough to tell one from several."""
    return session.scalars(
        select(CommitRow)
        .where(CommitRow.repo_id == repo_id, CommitRow.oid.startswith(prefix, autoescape=True))
        .limit(2)
    ).all()


def commits_of_job(session: Session, repo_id: int, job_id: str) -> Sequence[CommitRow]:
    """What this job has published to the repository, oldest first."""
    return session.scalars(
        select(CommitRow).where(CommitRow.repo_id == repo_id, CommitRow.job_id == job_id).order_by(CommitRow.id)
    ).all()


def has_commit_of_a_job(session: Session, repo_id: int) -> bool:
    """Whether a job has ever published to the repository."""
    found = select(CommitRow.id).where(CommitRow.repo_id == repo_id, CommitRow.job_id.is_not(None)).limit(1)
    return session.scalar(found) is not None


def history(session: Session, commit: CommitRow, *, limit: int) -> Sequence[CommitRow]:
    """The commit and its ancestors, newest first."""
    # A parent is written before its children, so ids run along the chain.
    query = select(CommitRow).where(CommitRow.id.in_(_chain(commit))).order_by(CommitRow.id.desc()).limit(limit)
    return session.scalars(query).all()


def verdicts(session: Session, commits: Iterable[CommitRow]) -> dict[int, str]:
    """What the gates said of each of these commits, by its id; without those that no job has made."""
    rows = session.execute(
        select(CommitRow.id, JobRow.verdict)
        .join(JobRow, JobRow.id == CommitRow.job_id)
        .where(CommitRow.id.in_([commit.id for commit in commits]), JobRow.verdict.is_not(None))
    )
    return {commit_id: verdict for commit_id, verdict in rows if verdict}


def _chain(commit: CommitRow) -> Select[tuple[int]]:
    """The ids of the commit and its ancestors."""
    base = select(CommitRow.id, CommitRow.repo_id, CommitRow.parent).where(CommitRow.id == commit.id)
    chain = base.cte("chain", recursive=True)
    parent = aliased(CommitRow)
    chain = chain.union_all(
        select(parent.id, parent.repo_id, parent.parent).join(
            chain, (parent.repo_id == chain.c.repo_id) & (parent.oid == chain.c.parent)
        )
    )
    return select(chain.c.id)


def files(session: Session, commit: CommitRow) -> list[TreeFile]:
    """Every file of the commit in path order."""
    rows = session.execute(
        select(CommitFileRow.path, CommitFileRow.size, CommitFileRow.sha256, CommitFileRow.git_oid).where(
            CommitFileRow.commit_id == commit.id
        )
    )
    return sorted((TreeFile(*row) for row in rows), key=lambda file: file.path)  # databases differ in their collations


def files_of(session: Session, commit_ids: Collection[int]) -> dict[int, list[TreeFile]]:
    """Every file of these commits, in path order."""
    rows = session.execute(
        select(
            CommitFileRow.commit_id, CommitFileRow.path, CommitFileRow.size, CommitFileRow.sha256, CommitFileRow.git_oid
        ).where(CommitFileRow.commit_id.in_(commit_ids))
    )
    found: dict[int, list[TreeFile]] = {commit_id: [] for commit_id in commit_ids}
    for commit_id, path, size, sha256, git_oid in rows:
        found[commit_id].append(TreeFile(path, size, sha256, git_oid))
    return {commit_id: sorted(files, key=lambda file: file.path) for commit_id, files in found.items()}


def find_file(session: Session, commit: CommitRow, path: str) -> TreeFile | None:
    """One file of the commit, or None."""
    row = session.get(CommitFileRow, (commit.id, path))
    return TreeFile(row.path, row.size, row.sha256, row.git_oid) if row else None


def refs(session: Session, repo_id: int) -> Sequence[tuple[str, str, str]]:
    """(kind, name, commit oid) of every branch and tag, in name order."""
    rows = session.execute(
        select(RefRow.kind, RefRow.name, CommitRow.oid)
        .join(CommitRow, CommitRow.id == RefRow.commit_id)
        .where(RefRow.repo_id == repo_id)
        .order_by(RefRow.kind, RefRow.name)
    )
    return [(kind, name, oid) for kind, name, oid in rows]


def named_commits(session: Session, repo_id: int, *, limit: int) -> Sequence[CommitRow]:
    """The commits that branches and tags of the repository point to, the newest `limit`, newest first."""
    named = select(RefRow.commit_id).where(RefRow.repo_id == repo_id)
    query = select(CommitRow).where(CommitRow.id.in_(named)).order_by(CommitRow.id.desc()).limit(limit)
    return session.scalars(query).all()


def add_commit(
    session: Session,
    repo: RepoRow,
    *,
    oid: str,
    parent: str | None,
    message: str,
    author: str,
    job_id: str | None,
    files: Iterable[TreeFile],
) -> CommitRow:
    """Write a commit and its files.

    Raises:
        BlobCollected: a file was stored so long ago that its bytes have been collected since.
    """
    files = list(files)
    name_blobs(session, {file.sha256: file.size for file in files})
    row = CommitRow(repo_id=repo.id, oid=oid, parent=parent, message=message, author=author, job_id=job_id)
    session.add(row)
    session.flush()
    rows = [
        {"commit_id": row.id, "path": file.path, "size": file.size, "sha256": file.sha256, "git_oid": file.git_oid}
        for file in files
    ]
    if rows:
        session.execute(insert(CommitFileRow), rows)
    _compare_with_parent(session, row)
    session.refresh(row)  # the database's clock has set the time
    return row


def _compare_with_parent(session: Session, commit: CommitRow) -> None:
    """Note which commit gave each path its content, and which paths are gone: no listing has to look back then."""
    parent = None if commit.parent is None else find_commit(session, commit.repo_id, commit.parent)
    of_parent = parent.id if parent else None
    before = aliased(CommitFileRow)
    unchanged = (
        select(before.since)
        .where(before.commit_id == of_parent, before.path == CommitFileRow.path, before.sha256 == CommitFileRow.sha256)
        .scalar_subquery()
    )
    session.execute(
        update(CommitFileRow)
        .where(CommitFileRow.commit_id == commit.id)
        .values(since=func.coalesce(unchanged, commit.id))
        .execution_options(synchronize_session=False)
    )
    now = aliased(CommitFileRow)
    gone = select(literal(commit.id), before.path).where(
        before.commit_id == of_parent, ~exists().where(now.commit_id == commit.id, now.path == before.path)
    )
    session.execute(insert(CommitRemovalRow).from_select(["commit_id", "path"], gone))


def files_since(session: Session, commit: CommitRow) -> list[tuple[str, int]]:
    """(path, id of the commit that gave it its content) of every file of the commit."""
    rows = session.execute(select(CommitFileRow.path, CommitFileRow.since).where(CommitFileRow.commit_id == commit.id))
    return [(path, since or commit.id) for path, since in rows]


def removals(session: Session, commit: CommitRow, *, limit: int) -> list[tuple[str, int]]:
    """(path, id of the commit that removed it) of the commit and its ancestors, the newest `limit` of them."""
    rows = session.execute(
        select(CommitRemovalRow.path, CommitRemovalRow.commit_id)
        .where(CommitRemovalRow.commit_id.in_(_chain(commit)))
        .order_by(CommitRemovalRow.commit_id.desc())
        .limit(limit)
    )
    return [(path, commit_id) for path, commit_id in rows]


def commits(session: Session, ids: Collection[int]) -> dict[int, CommitRow]:
    """The commits of these ids."""
    found: dict[int, CommitRow] = {}
    wanted = sorted(set(ids))
    for start in range(0, len(wanted), _IN_BATCH):
        batch = session.scalars(select(CommitRow).where(CommitRow.id.in_(wanted[start : start + _IN_BATCH])))
        found.update({row.id: row for row in batch})
    return found


def move_ref_from(session: Session, repo: RepoRow, branch: str, old: CommitRow, new: CommitRow) -> bool:
    """Compare and set: let the branch point to `new` if it still points to `old`; False where it does not."""
    moved = session.execute(
        update(RefRow)
        .where(RefRow.repo_id == repo.id, RefRow.kind == "branch", RefRow.name == branch, RefRow.commit_id == old.id)
        .values(commit_id=new.id)
        .returning(RefRow.name)
    )
    return moved.first() is not None


def create_ref(session: Session, repo: RepoRow, kind: RefKind, name: str, commit: CommitRow) -> bool:
    """Make a branch or a tag; False where there is one of this name."""
    try:
        with session.begin_nested():
            session.add(RefRow(repo_id=repo.id, kind=kind, name=name, commit_id=commit.id))
    except IntegrityError:
        return False
    return True


def delete_ref(session: Session, repo: RepoRow, kind: RefKind, name: str) -> bool:
    """Remove a branch or a tag, not its commits; False where there is none of this name."""
    gone = session.execute(
        delete(RefRow).where(RefRow.repo_id == repo.id, RefRow.kind == kind, RefRow.name == name).returning(RefRow.name)
    )
    return gone.first() is not None


def add_upload(session: Session, repo_id: int, blob: Blob) -> None:
    """Note that a writer of the repository has sent these bytes (now, if they had been sent before).

    Raises:
        BlobCollected: they have been collected since they were put.
    """
    name_blobs(session, {blob.sha256: blob.size})
    values = {"repo_id": repo_id, **asdict(blob), "created_at": db_now()}
    upsert = postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert
    session.execute(
        upsert(UploadRow)
        .values(values)
        .on_conflict_do_update(index_elements=["repo_id", "sha256"], set_={"created_at": db_now()})
    )


def possessed(session: Session, repo_id: int, sha256s: Collection[str]) -> dict[str, TreeFile]:
    """Of these contents, those that writers of the repository have sent or one of its commits holds (no path).

    What the store has lost is not among them, so that a client sends it again.
    """
    found: dict[str, TreeFile] = {}
    wanted = list(dict.fromkeys(sha256s))
    for start in range(0, len(wanted), _IN_BATCH):
        batch = wanted[start : start + _IN_BATCH]
        sent = select(UploadRow.sha256, UploadRow.size, UploadRow.git_oid).where(
            UploadRow.repo_id == repo_id, UploadRow.sha256.in_(batch)
        )
        held = (
            select(CommitFileRow.sha256, CommitFileRow.size, CommitFileRow.git_oid)
            .join(CommitRow, CommitRow.id == CommitFileRow.commit_id)
            .where(CommitRow.repo_id == repo_id, CommitFileRow.sha256.in_(batch))
        )
        lost = absent(session, batch)
        for sha256, size, git_oid in session.execute(sent.union(held)):
            if sha256 not in lost:
                found[sha256] = TreeFile("", size, sha256, git_oid)
    return found


def absent(session: Session, sha256s: Collection[str]) -> set[str]:
    """Of these blobs, those whose bytes are known not to be here."""
    query = select(BlobRow.sha256).where(BlobRow.sha256.in_(sha256s), BlobRow.state != "kept")
    return set(session.scalars(query))


def touch_uploads(session: Session, repo_id: int, sha256s: Collection[str]) -> None:
    """Put off the day on which these uploads are forgotten: a client relies on them."""
    session.execute(
        update(UploadRow).where(UploadRow.repo_id == repo_id, UploadRow.sha256.in_(sha256s)).values(created_at=db_now())
    )


def forget_uploads(session: Session, *, older_than_seconds: float) -> None:
    """Drop the notes about old uploads: a commit names them by now, or nobody ever will."""
    session.execute(delete(UploadRow).where(UploadRow.created_at < db_now(-older_than_seconds)))


def move_ref(session: Session, repo: RepoRow, kind: RefKind, name: str, commit: CommitRow) -> None:
    """Let a branch or a tag point to the commit; made if it was missing."""
    session.merge(RefRow(repo_id=repo.id, kind=kind, name=name, commit_id=commit.id))
    session.flush()
