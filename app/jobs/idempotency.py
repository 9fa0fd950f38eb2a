"""Idempotency keys, with all their SQL: a row reserves the key while its request is in flight, then names its job.

A reservation outlives a process that dies under it by a minute at most, by the database's clock. Functions take the
caller's session and never commit.
"""

import secrets
from dataclasses import dataclass
from typing import Final

from sqlalchemy import ColumnElement, delete, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from app.db.clock import db_now
from app.db.models import IdempotencyRow
from app.errors.references import IdempotencyKeyReused
from app.errors.requests import InvalidIdempotencyKey
from app.errors.resources import IdempotencyKeyInFlight

RESERVED_SECONDS: Final = 60.0
RETRY_AFTER_SECONDS: Final = 1
MAX_KEY_LENGTH: Final = 255


@dataclass(frozen=True)
class Reservation:
    """The caller's hold on a key."""

    owner: str
    key: str
    secret: str
    """Only who knows it may bind or free the key."""


def check_key(key: str) -> str:
    """Return the key if it can be one.

    Raises:
        InvalidIdempotencyKey: empty, too long, or not printable ASCII.
    """
    if not 0 < len(key) <= MAX_KEY_LENGTH or not (key.isascii() and key.isprintable()):
        raise InvalidIdempotencyKey(
            f"The Idempotency-Key must be 1 to {MAX_KEY_LENGTH} printable ASCII characters; a UUID will do.",
            parameter="Idempotency-Key",
        )
    return key


def reserve(session: Session, owner: str, key: str, request_hash: str) -> Reservation | str:
    """Reserve the key for a new job, or the id of the job that it already belongs to.

    Raises:
        IdempotencyKeyReused: it belongs to another request.
        IdempotencyKeyInFlight: the same request is being worked on.
    """
    secret = secrets.token_hex(16)
    insert = (postgresql if session.get_bind().dialect.name == "postgresql" else sqlite).insert
    values = {"request_hash": request_hash, "reservation": secret, "expires_at": db_now(RESERVED_SECONDS)}
    ours = session.scalar(
        insert(IdempotencyRow)
        .values(owner=owner, key=key, job_id=None, **values)
        .on_conflict_do_update(
            index_elements=[IdempotencyRow.owner, IdempotencyRow.key],
            set_=values,
            where=IdempotencyRow.job_id.is_(None) & (IdempotencyRow.expires_at < db_now()),
        )
        .returning(IdempotencyRow.reservation)
    )
    if ours is not None:
        return Reservation(owner, key, secret)
    row = session.execute(
        select(IdempotencyRow.request_hash, IdempotencyRow.job_id).where(
            IdempotencyRow.owner == owner, IdempotencyRow.key == key
        )
    ).one_or_none()
    if row is not None and row.request_hash != request_hash:
        raise IdempotencyKeyReused(
            "This Idempotency-Key was used for a request with another body. Send that body again to get its job, or "
            "choose a new key.",
            parameter="Idempotency-Key",
        )
    # No row at all: the request that held the key has just been refused and has freed it.
    if row is None or row.job_id is None:
        raise IdempotencyKeyInFlight(
            f"A request with this Idempotency-Key is under way; send it again in {RETRY_AFTER_SECONDS} s for its job.",
            parameter="Idempotency-Key",
            headers={"Retry-After": str(RETRY_AFTER_SECONDS)},
        )
    return str(row.job_id)


def bind(session: Session, reservation: Reservation, job_id: str) -> None:
    """Give the key to the job, in the transaction that makes the job.

    Raises:
        IdempotencyKeyInFlight: the reservation ran out and another request took the key; make no job.
    """
    bound = session.scalar(
        update(IdempotencyRow).where(*_is(reservation)).values(job_id=job_id).returning(IdempotencyRow.key)
    )
    if bound is None:
        raise IdempotencyKeyInFlight(
            "The request took so long that its Idempotency-Key was given to another one; send it again.",
            parameter="Idempotency-Key",
            headers={"Retry-After": str(RETRY_AFTER_SECONDS)},
        )


def free(session: Session, reservation: Reservation) -> None:
    """Let go of a key whose request was refused; a key that has a job stays."""
    session.execute(delete(IdempotencyRow).where(*_is(reservation), IdempotencyRow.job_id.is_(None)))


def _is(reservation: Reservation) -> tuple[ColumnElement[bool], ...]:
    return (
        IdempotencyRow.owner == reservation.owner,
        IdempotencyRow.key == reservation.key,
        IdempotencyRow.reservation == reservation.secret,
    )
