"""API keys: shown once when they are made, stored as a hash, each with one scope that includes the lesser ones.

A key has the form of a Hugging Face token (`hf_` and letters and digits), because some clients send nothing else.
"""

import hashlib
import secrets
import string
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum

from sqlalchemy import ColumnElement, case, func, or_, select, tuple_, update
from sqlalchemy.orm import Session

from app.auth.scopes import Scope
from app.db.clock import db_now
from app.db.cursors import Position
from app.db.models import ApiKeyRow

_ALPHABET = string.ascii_letters + string.digits
_SECRET_LENGTH = 40  # letters of 62 kinds: 238 bits
_ID_LENGTH = 8
_ANY = select(ApiKeyRow.id).limit(1)  # made once: every request without a key asks it
_USE_SECONDS = 60.0  # how old a noted use may be before the next one is noted


class KeyState(StrEnum):
    """Whether a key is good for anything."""

    VALID = "valid"
    EXPIRED = "expired"
    REVOKED = "revoked"


@dataclass(frozen=True)
class Limits:
    """What a key may use; None: as much as it likes."""

    max_queued_jobs: int | None = None
    max_requests_per_minute: int | None = None
    max_bytes_per_day: int | None = None


def create(
    session: Session, name: str, scope: Scope, *, valid_days: float | None = None, limits: Limits = Limits()
) -> tuple[ApiKeyRow, str]:
    """Make a key; the second value is the key itself, which is stored nowhere."""
    secret = "".join(secrets.choice(_ALPHABET) for _ in range(_SECRET_LENGTH))
    row = ApiKeyRow(
        id=secret[:_ID_LENGTH],
        name=name,
        sha256=_hash(f"hf_{secret}"),
        scope=scope,
        expires_at=None if valid_days is None else db_now(valid_days * 86400),
        **asdict(limits),
    )
    session.add(row)
    session.flush()
    session.refresh(row)
    return row, f"hf_{secret}"


def limits_of(row: ApiKeyRow) -> Limits:
    """What a key may use."""
    return Limits(row.max_queued_jobs, row.max_requests_per_minute, row.max_bytes_per_day)


def find(session: Session, key: str) -> ApiKeyRow | None:
    """The row of a key that is valid now."""
    return session.scalar(select(ApiKeyRow).where(ApiKeyRow.sha256 == _hash(key), *valid()))


def lock(session: Session, key_id: str) -> ApiKeyRow | None:
    """The row of a key, held until the transaction ends (SQLite has one writer at a time anyway)."""
    return session.scalars(select(ApiKeyRow).where(ApiKeyRow.id == key_id).with_for_update()).one_or_none()


def scope_of(session: Session, key_id: str) -> Scope | None:
    """The scope that a key has, or had while it was valid; None where it was never made."""
    found = session.scalar(select(ApiKeyRow.scope).where(ApiKeyRow.id == key_id))
    return None if found is None else Scope(found)


def valid_scope_of(session: Session, key_id: str) -> Scope | None:
    """The scope of a key that is valid now; None where it is revoked, expired or was never made."""
    found = session.scalar(select(ApiKeyRow.scope).where(ApiKeyRow.id == key_id, *valid()))
    return None if found is None else Scope(found)


def valid_among(session: Session, key_ids: Collection[str]) -> frozenset[str]:
    """Those of these keys that are valid now."""
    return frozenset(session.scalars(select(ApiKeyRow.id).where(ApiKeyRow.id.in_(key_ids), *valid())))


def exist(session: Session) -> bool:
    """Whether any key was ever made: from then on every call needs one (a revoked last key locks, not opens)."""
    return session.scalar(_ANY) is not None


def listing(session: Session) -> Sequence[tuple[ApiKeyRow, KeyState]]:
    """All keys, oldest first, each with what it is good for now."""
    query = select(ApiKeyRow, _state()).order_by(ApiKeyRow.created_at, ApiKeyRow.id)
    return [(row, KeyState(found)) for row, found in session.execute(query)]


def get(session: Session, key_id: str) -> tuple[ApiKeyRow, KeyState] | None:
    """The key with this id and what it is good for now; None where it was never made."""
    found = session.execute(
        select(ApiKeyRow, _state()).where(ApiKeyRow.id == key_id).execution_options(populate_existing=True)
    ).one_or_none()
    return None if found is None else (found[0], KeyState(found[1]))


def page(
    session: Session, *, state: KeyState | None, before: Position | None, limit: int
) -> Sequence[tuple[ApiKeyRow, KeyState]]:
    """Keys, newest first, that are older than `before`, each with what it is good for now."""
    query = select(ApiKeyRow, _state()).order_by(ApiKeyRow.created_at.desc(), ApiKeyRow.id.desc()).limit(limit)
    if state is not None:
        query = query.where(_state() == state)
    if before is not None:
        query = query.where(tuple_(ApiKeyRow.created_at, ApiKeyRow.id) < tuple_(*before))
    return [(row, KeyState(found)) for row, found in session.execute(query)]


def state_counts(session: Session) -> Mapping[str, int]:
    """How many keys there are in each state."""
    each = select(_state().label("state")).subquery()  # to be grouped by, an expression has to be a column
    query = select(each.c.state, func.count()).group_by(each.c.state)
    return {row.state: row[1] for row in session.execute(query)}


def revoke(session: Session, key_id: str) -> bool:
    """Make a key worthless from now on; False when there is none of this id."""
    first = func.coalesce(ApiKeyRow.revoked_at, db_now())
    revoked = session.scalar(
        update(ApiKeyRow).where(ApiKeyRow.id == key_id).values(revoked_at=first).returning(ApiKeyRow.id)
    )
    return revoked is not None


def mark_used(session: Session, key_ids: Collection[str]) -> None:
    """Note that these keys are used now; of a key that is used all the time, once in a while."""
    noted = or_(ApiKeyRow.last_used_at.is_(None), ApiKeyRow.last_used_at < db_now(-_USE_SECONDS))
    session.execute(
        update(ApiKeyRow)
        .where(ApiKeyRow.id.in_(key_ids), noted)
        .values(last_used_at=db_now())
        .execution_options(synchronize_session=False)
    )


def _state() -> ColumnElement[str]:
    return case(
        (ApiKeyRow.revoked_at.is_not(None), KeyState.REVOKED.value),
        (ApiKeyRow.expires_at <= db_now(), KeyState.EXPIRED.value),
        else_=KeyState.VALID.value,
    )


def valid() -> tuple[ColumnElement[bool], ...]:
    """Conditions under which a key is good now."""
    return ApiKeyRow.revoked_at.is_(None), or_(ApiKeyRow.expires_at.is_(None), ApiKeyRow.expires_at > db_now())


def _hash(key: str) -> str:
    # A key is random and long: a plain hash cannot be searched, and a slow one would only slow every request down.
    return hashlib.sha256(key.encode()).hexdigest()
