"""Keys that are made and revoked over HTTP. Functions take the caller's session and never commit.

Each change is in the audit log under the name that the command line uses, with the id of the key that it was about, in
the transaction of the change itself; the request as such is there too, like every other.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy.orm import Session

from app.auth import audit, keys
from app.auth.keys import KeyState
from app.auth.scopes import Scope
from app.auth.views import NewApiKey
from app.db import cursors
from app.db.models import ApiKeyRow
from app.errors.resources import KeyNotFound, NoFirstKey, OwnKey

MADE: Final = "keys create"
REVOKED: Final = "keys revoke"


@dataclass(frozen=True)
class Administrator:
    """Who asks for a change."""

    key_id: str
    """Empty where the service has no keys."""
    name: str
    request_id: str


@dataclass(frozen=True)
class Keys:
    """A page of keys, newest first, each with what it is good for now."""

    rows: Sequence[tuple[ApiKeyRow, KeyState]]
    next_cursor: str | None


def make(session: Session, wanted: NewApiKey, by: Administrator) -> tuple[ApiKeyRow, str]:
    """Make a key; the second value is the key itself, which nobody is told again.

    Raises:
        NoFirstKey: the service has none yet. Whoever reaches loopback may use such a service, and that can be
            anybody on the machine; who shuts it for the others is decided by whose data directory it is.
    """
    if not by.key_id:
        raise NoFirstKey(
            "This service has no API keys yet. Make the first one where it runs, with "
            "`streamline keys create NAME --scope admin --data DIRECTORY`; from then on every call needs one, and this "
            "route makes more."
        )
    row, key = keys.create(session, wanted.name, Scope(wanted.scope), valid_days=wanted.days, limits=wanted.limits)
    _record(session, by, MADE, row.id)
    return row, key


def revoke(session: Session, key_id: str, by: Administrator) -> tuple[ApiKeyRow, KeyState]:
    """Make a key worthless from now on, with its logins and the webhooks that were registered with it.

    Raises:
        KeyNotFound: there is no key of this id.
        OwnKey: it is the very key that asks.
    """
    if key_id == by.key_id:
        raise OwnKey(
            "This is the key that the request came with. Revoke it with another key of scope admin, or where the "
            f"service runs, with `streamline keys revoke {key_id} --data DIRECTORY`.",
            parameter="key_id",
        )
    before = find(session, key_id)
    if before[1] is KeyState.REVOKED:
        return before
    keys.revoke(session, key_id)
    _record(session, by, REVOKED, key_id)
    return find(session, key_id)


def find(session: Session, key_id: str) -> tuple[ApiKeyRow, KeyState]:
    """The key with what it is good for now.

    Raises:
        KeyNotFound: there is no key of this id.
    """
    found = keys.get(session, key_id)
    if found is None:
        raise KeyNotFound(f"There is no key {key_id[:64]!r}; GET /v1/keys lists those that are.", parameter="key_id")
    return found


def page(session: Session, *, state: KeyState | None, cursor: str | None, limit: int) -> Keys:
    """Keys, newest first.

    Raises:
        InvalidRequest: the cursor is none that this service gave out.
    """
    rows = keys.page(session, state=state, before=cursors.decode(cursor), limit=limit + 1)
    shown = rows[:limit]
    more = len(rows) > limit
    return Keys(shown, cursors.encode(shown[-1][0].created_at, shown[-1][0].id) if more else None)


def _record(session: Session, by: Administrator, action: str, key_id: str) -> None:
    audit.record(session, key_id=by.key_id, key_name=by.name, action=action, target=key_id, request_id=by.request_id)
