"""Remove the blobs that nothing needs, and what killed writers left half-written."""

import threading
from dataclasses import asdict, dataclass

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from app.storage import register
from app.storage.blobs import BlobStore, StorageError

log = structlog.get_logger(__name__)

_BATCH = 200
_REMEMBER_SECONDS = 30 * 86400.0
_FIRST_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Collection:
    """What a collection has removed, or would remove."""

    blobs: int
    bytes: int
    abandoned: int
    """Half-written files and uploads; not counted by a dry run."""


def collect(
    sessions: sessionmaker[Session], store: BlobStore, *, grace_seconds: float, dry_run: bool = False
) -> Collection:
    """One collection; any number may run at once, beside anything else, and may be killed anywhere.

    A blob goes when no commit, no data set and no job that has not ended names it, and nobody has put or named it for
    `grace_seconds` by the database's clock. Bytes that the register does not know are entered first, as if they were
    put now.

    Raises:
        StorageError: the store does not answer; what was condemned is removed by the next collection.
    """
    if dry_run:
        with sessions() as session:
            found = _all_unneeded(session, grace_seconds) + list(register.condemned(session))
        return Collection(len(found), sum(size for _, size in found), 0)
    abandoned = store.collect_abandoned()
    _enter_unknown(sessions, store)
    with sessions.begin() as session:
        register.release_ended_jobs(session)
        register.forget_gone(session, older_than_seconds=_REMEMBER_SECONDS)
    _condemn_all(sessions, grace_seconds)
    with sessions() as session:
        condemned = register.condemned(session)
    removed = [size for sha256, size in condemned if _remove(sessions, store, sha256)]
    return Collection(len(removed), sum(removed), abandoned)


def _all_unneeded(session: Session, grace_seconds: float) -> list[tuple[str, int]]:
    found: list[tuple[str, int]] = []
    after = ""
    while page := register.unneeded(session, grace_seconds=grace_seconds, after=after, limit=_BATCH, lock=False):
        found += page
        after = page[-1][0]
    return found


def _enter_unknown(sessions: sessionmaker[Session], store: BlobStore) -> None:
    batch: list[tuple[str, int]] = []
    for blob in store.blobs():
        batch.append(blob)
        if len(batch) == _BATCH:
            with sessions.begin() as session:
                register.add_found(session, batch)
            batch = []
    if batch:
        with sessions.begin() as session:
            register.add_found(session, batch)


def _condemn_all(sessions: sessionmaker[Session], grace_seconds: float) -> None:
    after = ""
    while True:
        with sessions.begin() as session:
            page = register.unneeded(session, grace_seconds=grace_seconds, after=after, limit=_BATCH, lock=True)
            if not page:
                return
            register.condemn(session, [sha256 for sha256, _ in page])
        after = page[-1][0]


def _remove(sessions: sessionmaker[Session], store: BlobStore, sha256: str) -> bool:
    """Remove a condemned blob's bytes while its row is held: whoever puts it again waits, and finds it missing."""
    with sessions.begin() as session:
        if not register.lock_condemned(session, sha256):
            return False
        store.remove(sha256)
        register.mark_gone(session, sha256)
    return True


def run_collector(
    sessions: sessionmaker[Session],
    store: BlobStore,
    stop: threading.Event,
    *,
    every_seconds: float,
    grace_seconds: float,
) -> None:
    """Collect until `stop` is set, for the first time a minute after the start; what fails is tried again next time."""
    pause = min(_FIRST_SECONDS, every_seconds)
    while not stop.wait(pause):
        pause = every_seconds
        try:
            done = collect(sessions, store, grace_seconds=grace_seconds)
        except (SQLAlchemyError, StorageError, OSError) as error:
            log.warning("collection_failed", error=type(error).__name__, detail=str(error))
        else:
            if done.blobs or done.abandoned:
                log.info("collected", **asdict(done))
