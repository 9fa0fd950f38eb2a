"""All the SQL about logins: whose they are, and which of them were ended by logging out.

A login is a cookie that proves itself, so that only those that were ended have a row. Functions take the caller's
session and never commit.
"""

from typing import Final

from sqlalchemy import delete, exists, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from app.auth import keys
from app.auth.logins import SECONDS, Login
from app.db.clock import db_now
from app.db.models import ApiKeyRow, EndedLoginRow

_CLOCKS_DIFFER_SECONDS: Final = 86_400.0
"""A cookie's age is told by the clocks of API machines, a row's by the database's."""


def key_of(session: Session, login: Login) -> ApiKeyRow | None:
    """The row of the login's key, if the key is valid now and the login was not ended."""
    ended = exists().where(EndedLoginRow.sha256 == login.sha256)
    return session.scalar(select(ApiKeyRow).where(ApiKeyRow.id == login.key_id, *keys.valid(), ~ended))


def end(session: Session, login: Login) -> None:
    """Make the login worthless from now on, whoever has a copy of its cookie."""
    insert = (postgresql if session.get_bind().dialect.name == "postgresql" else sqlite).insert
    session.execute(insert(EndedLoginRow).values(sha256=login.sha256, ended_at=db_now()).on_conflict_do_nothing())


def forget(session: Session, *, limit: int) -> int:
    """Remove rows of logins that are too old to count in any case, at most `limit` of them; how many."""
    row = EndedLoginRow
    old = select(row.sha256).where(row.ended_at < db_now(-SECONDS - _CLOCKS_DIFFER_SECONDS)).limit(limit)
    old = old.with_for_update(skip_locked=True)  # other replicas sweep too
    gone = session.scalars(
        delete(row).where(row.sha256.in_(old)).returning(row.sha256).execution_options(synchronize_session=False)
    )
    return len(gone.all())
