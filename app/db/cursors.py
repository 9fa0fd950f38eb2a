"""Cursors of lists that are shown newest first: the creation time and the id of the last row that was seen."""

import base64
import binascii
from datetime import UTC, datetime

from app.errors.requests import InvalidRequest

Position = tuple[datetime, str]


def encode(created_at: datetime, row_id: str) -> str:
    """The cursor of the page behind this row."""
    return base64.urlsafe_b64encode(f"{created_at.isoformat()} {row_id}".encode()).decode().rstrip("=")


def decode(cursor: str | None) -> Position | None:
    """The position that a cursor stands for; None without one.

    Raises:
        InvalidRequest: the cursor is none that this service gave out.
    """
    if not cursor:
        return None
    try:
        text = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode("ascii")
        moment, _, row_id = text.partition(" ")
        created_at = datetime.fromisoformat(moment)
        if created_at.tzinfo is None:
            raise ValueError(text)
        created_at = created_at.astimezone(UTC)  # here, where a year outside the calendar is the client's error
        if not row_id or not row_id.replace("_", "").isalnum():
            raise ValueError(text)
    except (binascii.Error, ValueError, OverflowError):
        raise InvalidRequest(
            "cursor is not one that this service gave out; send `next_cursor` of the page before, or leave it out.",
            parameter="cursor",
        ) from None
    return created_at, row_id
