"""API keys: shown once when they are made, stored as a hash, each with one scope that includes the lesser ones.

A key has the form of a Hugging Face token (`hf_` and letters and digits), because some clients send nothing else.
"""

import hashlib
import secrets
import string
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from sqlalchemy import ColumnElement, or_, select, update
from sqlalchemy.orm import Session

from app.auth.scopes import Scope
from app.db.clock import db_now
from app.db.models import ApiKeyRow

_ALPHABET = string.ascii_letters + string.digits
_SECRET_LENGTH = 40  # letters of 62 kinds: 238 bits
_ID_LENGTH = 8
_ANY = select(ApiKeyRow.id).limit(1)  # made once: every request without a key asks it


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
    return session.scalar(select(ApiKeyRow).where(ApiKeyRow.sha256 == _hash(key), *_valid()))


def find_by_id(session: Session, key_id: str) -> ApiKeyRow | None:
    """The row of the key with this id, if it is valid now."""
    return session.scalar(select(ApiKeyRow).where(ApiKeyRow.id == key_id, *_valid()))


def lock(session: Session, key_id: str) -> ApiKeyRow | None:
    """The row of a key, held until the transaction ends (SQLite has one writer at a time anyway)."""
    return session.scalars(select(ApiKeyRow).where(ApiKeyRow.id == key_id).with_for_update()).one_or_none()


def scope_of(session: Session, key_id: str) -> Scope | None:
    """The scope that a key has, or had while it was valid; None where it was never made."""
    found = session.scalar(select(ApiKeyRow.scope).where(ApiKeyRow.id == key_id))
    return None if found is None else Scope(found)


def valid_scope_of(session: Session, key_id: str) -> Scope | None:
    """The scope of a key that is valid now; None where it is revoked, expired or was never made."""
    found = session.scalar(select(ApiKeyRow.scope).where(ApiKeyRow.id == key_id, *_valid()))
    return None if found is None else Scope(found)


def exist(session: Session) -> bool:
    """Whether any key was ever made: from then on every call needs one (a revoked last key locks, not opens)."""
    return session.scalar(_ANY) is not None


def listing(session: Session) -> Sequence[ApiKeyRow]:
    """All keys, oldest first."""
    return session.scalars(select(ApiKeyRow).order_by(ApiKeyRow.created_at)).all()


def revoke(session: Session, key_id: str) -> bool:
    """Make a key worthless from now on; False when there is none of this id."""
    revoked = session.scalar(
        update(ApiKeyRow).where(ApiKeyRow.id == key_id).values(revoked_at=db_now()).returning(ApiKeyRow.id)
    )
    return revoked is not None


def _valid() -> tuple[ColumnElement[bool], ...]:
    return ApiKeyRow.revoked_at.is_(None), or_(ApiKeyRow.expires_at.is_(None), ApiKeyRow.expires_at > db_now())


def _hash(key: str) -> str:
    # A key is random and long: a plain hash cannot be searched, and a slow one would only slow every request down.
    return hashlib.sha256(key.encode()).hexdigest()
