"""All the SQL about blobs: who needs them, and how the collection never takes one that is about to be needed.

A blob has a row. To put one is to touch its row, before the store is asked for its bytes; to name one (in a commit, a
data set, for a running job) is to touch its row in the transaction that names it. The collection condemns a row that
nothing names, in a transaction that holds it, removes the bytes in a second one that holds it again, and leaves the
row as `gone`. So whoever puts a blob finds its bytes complete or missing and not about to go, and whoever names one
that was condemned in between is told so instead of publishing a hole. The grace that the collection gives a fresh blob
only spares publishers that second try.

A blob that is named and whose bytes are not here is `absent`: a copy of an upstream hub names files before anybody has
asked for their bytes, and a damaged blob was moved aside. Putting it ends that.

Functions take the caller's session and never commit, but for `register_in`.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import Boolean, ColumnElement, Select, delete, exists, literal_column, select, union_all, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session, sessionmaker

from app.db.clock import db_now
from app.db.models import (
    Base,
    BlobHoldRow,
    BlobRow,
    CommitFileRow,
    CommitRow,
    DatasetRow,
    JobRow,
    RepoRow,
    UploadRow,
)
from app.jobs.states import State
from app.storage.blobs import Blob, BlobCollected, Register

_BATCH = 500
_NAMED_IN = (CommitFileRow.sha256, DatasetRow.sha256, UploadRow.sha256)
"""Columns whose blobs are kept for as long as the row is there."""

_MAY_BE_NAMED = literal_column("blobs.state IN ('kept', 'absent')", Boolean)

_OPEN = (State.QUEUED, State.RUNNING)


def register_in(sessions: sessionmaker[Session]) -> Register:
    """A store's `register`: each blob that is put is touched in a transaction of its own."""

    def register(blob: Blob) -> None:
        with sessions.begin() as session:
            _upsert(session, [(blob.sha256, blob.size)], revive=True)

    return register


def name_blobs(session: Session, sizes: Mapping[str, int]) -> None:
    """Touch the blobs (sha256 -> bytes) that the caller's transaction is about to name.

    Raises:
        BlobCollected: one of them has been collected since it was put.
    """
    kept: set[str] = set()
    ordered = sorted(sizes.items())  # so that two transactions lock rows in one order
    for start in range(0, len(ordered), _BATCH):
        kept.update(_upsert(session, ordered[start : start + _BATCH], revive=False))
    if lost := sorted(sizes.keys() - kept):
        raise BlobCollected(lost[0])


def expect(session: Session, sizes: Mapping[str, int]) -> None:
    """Let the caller's transaction name blobs (sha256 -> bytes) whose bytes are still to come."""
    ordered = sorted(sizes.items())
    for start in range(0, len(ordered), _BATCH):
        fresh = _insert(session, BlobRow)
        expected = fresh.on_conflict_do_update(
            index_elements=[BlobRow.sha256],
            set_={"touched_at": fresh.excluded.touched_at, "state": fresh.excluded.state},
            where=~_MAY_BE_NAMED,
        )
        session.execute(expected, _rows(ordered[start : start + _BATCH], state="absent"))


def mark_absent(session: Session, sha256s: Collection[str]) -> None:
    """Note that the bytes of these blobs are not here (any more), so that whoever has them is asked to send them."""
    session.execute(update(BlobRow).where(BlobRow.sha256.in_(sha256s)).values(state="absent", touched_at=db_now()))


def hold_for_job(session: Session, job_id: str, sizes: Mapping[str, int]) -> None:
    """Keep the blobs until the job has ended, also where their repository is removed meanwhile.

    Raises:
        BlobCollected: one of them is gone already.
    """
    name_blobs(session, sizes)
    rows = [{"job_id": job_id, "sha256": sha256} for sha256 in sorted(sizes)]
    for start in range(0, len(rows), _BATCH):
        batch = rows[start : start + _BATCH]
        session.execute(_insert(session, BlobHoldRow).on_conflict_do_nothing(), batch)


def release_ended_jobs(session: Session) -> None:
    """Let go of what jobs held that have ended."""
    ended = select(JobRow.id).where(JobRow.state.not_in(_OPEN))
    session.execute(delete(BlobHoldRow).where(BlobHoldRow.job_id.in_(ended)))


def add_found(session: Session, found: Iterable[tuple[str, int]]) -> None:
    """Give the blobs that the store was found to have a row, as if they were put now; those with one are left alone."""
    session.execute(_insert(session, BlobRow).on_conflict_do_nothing(), _rows(sorted(found)))


def unneeded(
    session: Session, *, grace_seconds: float, after: str, limit: int, lock: bool
) -> Sequence[tuple[str, int]]:
    """Sha256 and bytes of blobs that nothing needs and nobody has touched for so long, in order behind `after`.

    With `lock` their rows stay locked until the transaction ends; rows that somebody else has locked are in use, and
    are left out.
    """
    query = (
        select(BlobRow.sha256, BlobRow.size)
        .where(BlobRow.state == "kept", BlobRow.touched_at <= db_now(-grace_seconds), BlobRow.sha256 > after)
        .where(*_unnamed())
        .order_by(BlobRow.sha256)
        .limit(limit)
    )
    if lock:
        query = query.with_for_update(skip_locked=True, of=BlobRow)
    return [(sha256, size) for sha256, size in session.execute(query)]


def _unnamed() -> Iterator[ColumnElement[bool]]:
    return (~exists().where(column == BlobRow.sha256) for column in (*_NAMED_IN, BlobHoldRow.sha256))


def condemn(session: Session, sha256s: Collection[str]) -> set[str]:
    """Condemn those of the locked rows that still nothing needs; returns which.

    They are looked up once more because a statement sees what was committed before it began: the one that took the
    locks may have waited for a transaction that named a blob.
    """
    needed = set(session.scalars(_references(sha256s)))
    wanted = set(sha256s) - needed
    session.execute(update(BlobRow).where(BlobRow.sha256.in_(wanted)).values(state="condemned", touched_at=db_now()))
    return wanted


def condemned(session: Session) -> Sequence[tuple[str, int]]:
    """Sha256 and bytes of every condemned blob, those of a collection that was killed among them."""
    query = select(BlobRow.sha256, BlobRow.size).where(BlobRow.state == "condemned").order_by(BlobRow.sha256)
    return [(sha256, size) for sha256, size in session.execute(query)]


def lock_condemned(session: Session, sha256: str) -> bool:
    """Lock the row; False where the blob has been put again since it was condemned."""
    query = select(BlobRow.sha256).where(BlobRow.sha256 == sha256, BlobRow.state == "condemned").with_for_update()
    return session.scalar(query) is not None


def mark_gone(session: Session, sha256: str) -> None:
    """The bytes of the blob, whose row is locked, are gone."""
    session.execute(update(BlobRow).where(BlobRow.sha256 == sha256).values(state="gone", touched_at=db_now()))


def forget_gone(session: Session, *, older_than_seconds: float) -> None:
    """Remove the rows of blobs without bytes that nothing has named for so long that no publisher of them is alive."""
    session.execute(
        delete(BlobRow)
        .where(BlobRow.state.in_(("gone", "absent")), BlobRow.touched_at <= db_now(-older_than_seconds))
        .where(*_unnamed())
        .execution_options(synchronize_session=False)
    )


def named(session: Session) -> Iterator[tuple[str, int]]:
    """Sha256 and bytes of every blob that a commit or a data set names, some of them several times.

    Without those that a copy of an upstream hub names and nobody has asked for: they have never been here.
    """
    copied = (
        exists()
        .where(CommitRow.id == CommitFileRow.commit_id, RepoRow.id == CommitRow.repo_id, RepoRow.upstream.is_not(None))
        .correlate(CommitFileRow)
    )
    absent = exists().where(BlobRow.sha256 == CommitFileRow.sha256, BlobRow.state == "absent").correlate(CommitFileRow)
    for query in (
        select(CommitFileRow.sha256, CommitFileRow.size).where(~(copied & absent)).distinct(),
        select(DatasetRow.sha256, DatasetRow.size).distinct(),
    ):
        for row in session.execute(query):
            yield row.sha256, row.size


def places(session: Session, sha256s: Collection[str]) -> dict[str, list[str]]:
    """What names each of these blobs, in words for people: `repo@commit:file`, the newest first, or a data set."""
    found: dict[str, list[str]] = {}
    wanted = sorted(set(sha256s))
    for start in range(0, len(wanted), _BATCH):
        batch = wanted[start : start + _BATCH]
        of_commits = (
            select(CommitFileRow.sha256, RepoRow.name, CommitRow.oid, CommitFileRow.path)
            .join(CommitRow, CommitRow.id == CommitFileRow.commit_id)
            .join(RepoRow, RepoRow.id == CommitRow.repo_id)
            .where(CommitFileRow.sha256.in_(batch))
            .order_by(CommitRow.id.desc())
        )
        for sha256, repo, oid, path in session.execute(of_commits):
            found.setdefault(sha256, []).append(f"{repo}@{oid}:{path}")
        of_data = select(DatasetRow.sha256, DatasetRow.id, DatasetRow.name).where(DatasetRow.sha256.in_(batch))
        for sha256, id_, name in session.execute(of_data):
            found.setdefault(sha256, []).append(f"data set {id_} ({name})")
    return found


def _references(sha256s: Collection[str]) -> Select[tuple[str]]:
    columns = (*_NAMED_IN, BlobHoldRow.sha256)
    found = union_all(*(select(column).where(column.in_(sha256s)) for column in columns)).subquery()
    return select(found.c.sha256)


def _upsert(session: Session, blobs: Iterable[tuple[str, int]], *, revive: bool) -> Sequence[str]:
    """Touch the rows, made where they are missing; returns those that may be named now."""
    fresh = _insert(session, BlobRow)
    touched = fresh.on_conflict_do_update(
        index_elements=[BlobRow.sha256],
        set_={"touched_at": fresh.excluded.touched_at} | ({"state": fresh.excluded.state} if revive else {}),
        where=None if revive else _MAY_BE_NAMED,
    )
    return session.scalars(touched.returning(BlobRow.sha256), _rows(blobs)).all()


def _rows(blobs: Iterable[tuple[str, int]], *, state: str = "kept") -> list[dict[str, Any]]:
    # The time is the column's own default. As parameters, not as VALUES: a statement of any length is compiled once.
    return [{"sha256": sha256, "size": size, "state": state} for sha256, size in blobs]


def _insert(session: Session, table: type[Base]) -> postgresql.Insert | sqlite.Insert:
    if session.get_bind().dialect.name == "postgresql":
        return postgresql.insert(table)
    return sqlite.insert(table)
