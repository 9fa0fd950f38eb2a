"""All the SQL about deliveries. Functions take the caller's session and never commit.

An attempt is claimed by compare-and-set, holds a lease, and writes its outcome only while it is the last one that was
begun: of any number of senders one at a time has a message, and a sender that died loses it by time.
"""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import ColumnElement, Update, case, delete, func, null, or_, select, tuple_, update
from sqlalchemy.orm import Session, aliased

from app.db.clock import db_now
from app.db.cursors import Position
from app.db.models import WebhookDeliveryRow

PENDING: Final = "pending"
DELIVERED: Final = "delivered"
FAILED: Final = "failed"
_LONGEST_ERROR: Final = 300  # of the column


@dataclass(frozen=True)
class Claim:
    """What a sender got when it took a message."""

    delivery_id: str
    webhook_id: str
    job_id: str
    payload: str
    attempt: int
    failures: int
    began: datetime
    """By the database's clock, which is right where this machine's may not be."""


def add(session: Session, webhook_id: str, job_id: str, seq: int, *, event: str, payload: str) -> None:
    """Note a message that is to be sent at once."""
    session.add(
        WebhookDeliveryRow(
            id=f"msg_{uuid.uuid4().hex}",
            webhook_id=webhook_id,
            job_id=job_id,
            seq=seq,
            event=event,
            payload=payload,
            state=PENDING,
            next_attempt_at=db_now(),
        )
    )
    session.flush()


# --- the sender's ----------------------------------------------------------------------------------------------------


def _is_due() -> tuple[ColumnElement[bool], ...]:
    """Of an endpoint one message at a time: a slow receiver holds one sender, and is not asked in parallel."""
    row, other = WebhookDeliveryRow, aliased(WebhookDeliveryRow)
    busy = select(other.webhook_id).where(other.lease_expires_at > db_now())
    # Of the row itself once more: an UPDATE that waited for a rival looks again at its own row alone.
    free = or_(row.lease_expires_at.is_(None), row.lease_expires_at <= db_now())
    return row.state == PENDING, row.next_attempt_at <= db_now(), free, row.webhook_id.not_in(busy)


def due(session: Session, *, limit: int) -> Sequence[str]:
    """Ids of messages whose time has come, the longest overdue first."""
    query = select(WebhookDeliveryRow.id).where(*_is_due())
    return session.scalars(query.order_by(WebhookDeliveryRow.next_attempt_at).limit(limit)).all()


def claim(session: Session, delivery_id: str, *, lease_seconds: float) -> Claim | None:
    """Take a message that is due, or None: somebody else has it."""
    row = session.execute(
        update(WebhookDeliveryRow)
        .where(WebhookDeliveryRow.id == delivery_id, *_is_due())
        .values(
            attempts=WebhookDeliveryRow.attempts + 1,
            lease_expires_at=db_now(lease_seconds),
            last_attempt_at=db_now(),
        )
        .returning(
            WebhookDeliveryRow.webhook_id,
            WebhookDeliveryRow.job_id,
            WebhookDeliveryRow.payload,
            WebhookDeliveryRow.attempts,
            WebhookDeliveryRow.failures,
            WebhookDeliveryRow.last_attempt_at,
        )
        .execution_options(synchronize_session=False)
    ).one_or_none()
    if row is None:
        return None
    return Claim(delivery_id, row.webhook_id, row.job_id, row.payload, row.attempts, row.failures, row.last_attempt_at)


def _held(claimed: Claim) -> Update:
    return (
        update(WebhookDeliveryRow)
        .where(
            WebhookDeliveryRow.id == claimed.delivery_id,
            WebhookDeliveryRow.attempts == claimed.attempt,
            WebhookDeliveryRow.state == PENDING,
        )
        .execution_options(synchronize_session=False)
    )


def delivered(session: Session, claimed: Claim, status: int) -> None:
    """The receiver has taken the message; changes nothing if another attempt was begun since."""
    session.execute(
        _held(claimed).values(
            state=DELIVERED,
            status_code=status,
            error=None,
            next_attempt_at=None,
            lease_expires_at=None,
            delivered_at=db_now(),
        )
    )


def failed(session: Session, claimed: Claim, *, error: str, status: int | None, delay: float | None) -> None:
    """The attempt has failed; the next comes after `delay` seconds, or (None) never.

    Changes nothing if another attempt was begun since; one that was asked for meanwhile (`send_again`) still comes.
    """
    row = WebhookDeliveryRow
    asked_again = row.failures != claimed.failures
    session.execute(
        _held(claimed).values(
            state=case((asked_again, PENDING), else_=FAILED if delay is None else PENDING),
            failures=case((asked_again, row.failures), else_=row.failures + 1),
            status_code=status,
            error=error[:_LONGEST_ERROR],
            next_attempt_at=case((asked_again, row.next_attempt_at), else_=null() if delay is None else db_now(delay)),
            lease_expires_at=None,
        )
    )


def give_up(session: Session, webhook_id: str, *, error: str) -> None:
    """Send the endpoint nothing of what still waits for it."""
    session.execute(
        update(WebhookDeliveryRow)
        .where(WebhookDeliveryRow.webhook_id == webhook_id, WebhookDeliveryRow.state == PENDING)
        .values(state=FAILED, error=error, next_attempt_at=None, lease_expires_at=None)
        .execution_options(synchronize_session=False)
    )


# --- the client's ----------------------------------------------------------------------------------------------------


def get(session: Session, webhook_id: str, delivery_id: str) -> WebhookDeliveryRow | None:
    """The endpoint's delivery as it stands."""
    query = select(WebhookDeliveryRow).where(
        WebhookDeliveryRow.id == delivery_id, WebhookDeliveryRow.webhook_id == webhook_id
    )
    return session.scalar(query.execution_options(populate_existing=True))


def page(
    session: Session, webhook_id: str, *, state: str | None, before: Position | None, limit: int
) -> Sequence[WebhookDeliveryRow]:
    """The endpoint's deliveries, newest first, that are older than `before`."""
    row = WebhookDeliveryRow
    query = select(row).where(row.webhook_id == webhook_id).order_by(row.created_at.desc(), row.id.desc()).limit(limit)
    if state is not None:
        query = query.where(row.state == state)
    if before is not None:
        query = query.where(tuple_(row.created_at, row.id) < tuple_(*before))
    return session.scalars(query).all()


def send_again(session: Session, webhook_id: str, delivery_id: str) -> bool:
    """Let the message be sent now, with its failures counted anew; False when the endpoint has none of this id.

    An attempt that is under way keeps its lease; if it succeeds, there is nothing left to send.
    """
    changed = session.scalar(
        update(WebhookDeliveryRow)
        .where(WebhookDeliveryRow.id == delivery_id, WebhookDeliveryRow.webhook_id == webhook_id)
        .values(state=PENDING, failures=0, next_attempt_at=db_now(), delivered_at=None)
        .returning(WebhookDeliveryRow.id)
        .execution_options(synchronize_session=False)
    )
    return changed is not None


def forget(session: Session, *, older_than_seconds: float, limit: int) -> int:
    """Remove messages that were made and tried last so long ago and wait for nothing, at most `limit`; how many.

    Of a message that was sent again lately the log stays, however old the message is.
    """
    row, then = WebhookDeliveryRow, db_now(-older_than_seconds)
    untried = row.last_attempt_at.is_(None)
    old = (
        select(row.id)
        .where(row.created_at < then, row.state != PENDING, or_(untried, row.last_attempt_at < then))
        .order_by(row.created_at)
        .limit(limit)
        .with_for_update(skip_locked=True)  # other replicas sweep too
    )
    gone = session.scalars(
        delete(row).where(row.id.in_(old)).returning(row.id).execution_options(synchronize_session=False)
    )
    return len(gone.all())


def waiting(session: Session) -> int:
    """How many messages are still to be sent: for the metrics."""
    return session.scalar(select(func.count()).where(WebhookDeliveryRow.state == PENDING)) or 0
