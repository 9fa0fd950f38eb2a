"""What keeps the tables right and bounded beside the requests: uses of keys are noted, and what is over is removed.

Any number of processes may do it at once. Each removal is a short transaction over a bounded number of rows, so that
nobody waits long for them, however much has piled up.
"""

import threading
from collections.abc import Callable
from typing import Final

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from app.auth import ended_logins, keys
from app.auth.holders import Holders
from app.webhooks import deliveries, repository

EVERY_SECONDS: Final = 60.0
BATCH: Final = 500
_DAY_SECONDS: Final = 86_400.0

log = structlog.get_logger(__name__)


def note_use(sessions: sessionmaker[Session], holders: Holders) -> None:
    """Write down which keys were used since the last time."""
    if used := holders.take_used():
        with sessions.begin() as session:
            keys.mark_used(session, used)


def sweep(sessions: sessionmaker[Session], *, keep_days: float, stop: threading.Event | None = None) -> dict[str, int]:
    """Remove what is over; how many of each.

    Args:
        sessions: of the database.
        keep_days: how long messages of webhooks are kept that wait for nothing.
        stop: ends it between two batches.
    """

    def old_deliveries(session: Session, limit: int) -> int:
        return deliveries.forget(session, older_than_seconds=keep_days * _DAY_SECONDS, limit=limit)

    removals: dict[str, Callable[[Session, int], int]] = {
        "deliveries": old_deliveries,
        "old_secrets": lambda session, limit: repository.forget_old_secrets(session, limit=limit),
        "ended_logins": lambda session, limit: ended_logins.forget(session, limit=limit),
    }
    return {name: _in_batches(sessions, remove, stop) for name, remove in removals.items()}


def _in_batches(
    sessions: sessionmaker[Session], remove: Callable[[Session, int], int], stop: threading.Event | None
) -> int:
    removed = 0
    while stop is None or not stop.is_set():
        with sessions.begin() as session:
            batch = remove(session, BATCH)
        removed += batch
        if batch < BATCH:
            break
    return removed


def run_upkeep(
    sessions: sessionmaker[Session],
    holders: Holders,
    stop: threading.Event,
    *,
    keep_days: float,
    every_seconds: float = EVERY_SECONDS,
) -> None:
    """Keep the tables until `stop` is set; a database that is away is tried again in the next round."""
    while not stop.wait(every_seconds):
        try:
            note_use(sessions, holders)
            removed = sweep(sessions, keep_days=keep_days, stop=stop)
        except SQLAlchemyError as error:
            log.warning("upkeep_retries", error=type(error).__name__)
        else:
            if any(removed.values()):
                log.info("swept", **removed)
