"""The audit log: who changed, or tried to change, what, and what was answered. Rows are only ever added."""

from collections.abc import Sequence
from typing import Final

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.db.models import AuditRow

_LONGEST_TARGET: Final = 500
LOCAL_COMMAND: Final = "command"
"""`key_name` of what was done with the operator's command line, which needs no key."""
BY_ITSELF: Final = "service"
"""`key_name` of what the service has done without being asked."""


def record(
    session: Session, *, key_id: str, key_name: str, action: str, target: str, status: int = 0, request_id: str = ""
) -> None:
    """Add a row; the caller commits, where it can in the transaction of the change itself."""
    shown = target.encode("utf-8", "backslashreplace").decode().replace("\0", "\\0")
    session.add(
        AuditRow(
            key_id=key_id,
            key_name=key_name,
            action=action,
            target=shown[:_LONGEST_TARGET],
            status=status,
            request_id=request_id,
        )
    )


def recent(session: Session, *, key_id: str | None = None, limit: int = 100) -> Sequence[AuditRow]:
    """The newest rows, the oldest of them first."""
    query = select(AuditRow).order_by(AuditRow.id.desc()).limit(limit)
    if key_id is not None:
        query = query.where(AuditRow.key_id == key_id)
    return list(reversed(session.scalars(query).all()))
