"""How much a key may use: requests per minute and bytes of bodies per day, counted in the database for all replicas.

A window begins with the first use and lasts a minute or a day; what is refused is not counted. Functions take the
caller's session and never commit.
"""

import math
from enum import StrEnum
from typing import Final

from sqlalchemy import case, or_, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from app.db.clock import db_now
from app.db.models import KeyUsageRow


class Usage(StrEnum):
    """What is counted."""

    REQUESTS = "requests"
    BYTES = "bytes"


WINDOW_SECONDS: Final = {Usage.REQUESTS: 60, Usage.BYTES: 86400}


def charge(session: Session, key_id: str, kind: Usage, amount: int, limit: int | None) -> int | None:
    """Count `amount` for the key, unless that would exceed `limit` (None: count it in any case).

    Returns:
        None if it was counted, else the seconds until the key may use anything again.
    """
    seconds = WINDOW_SECONDS[kind]
    if limit is not None and amount > limit:
        return seconds
    over = KeyUsageRow.window_start <= db_now(-seconds)
    counted = KeyUsageRow.amount + amount
    insert = (postgresql if session.get_bind().dialect.name == "postgresql" else sqlite).insert
    taken = session.scalar(
        insert(KeyUsageRow)
        .values(key_id=key_id, kind=kind, window_start=db_now(), amount=amount)
        .on_conflict_do_update(
            index_elements=[KeyUsageRow.key_id, KeyUsageRow.kind],
            set_={
                "amount": case((over, amount), else_=counted),
                "window_start": case((over, db_now()), else_=KeyUsageRow.window_start),
            },
            where=None if limit is None else or_(over, counted <= limit),
        )
        .returning(KeyUsageRow.amount)
    )
    return None if taken is not None else _seconds_left(session, key_id, kind)


def _seconds_left(session: Session, key_id: str, kind: Usage) -> int:
    started, now = session.execute(
        select(KeyUsageRow.window_start, db_now()).where(KeyUsageRow.key_id == key_id, KeyUsageRow.kind == kind)
    ).one()
    return max(1, math.ceil(WINDOW_SECONDS[kind] - (now - started).total_seconds()))
