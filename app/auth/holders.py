"""Who holds the key of a request, for what is done with every request: quotas and the audit log.

Remembered for a few seconds, so that a client that polls costs one query now and then. Whether the key is good is
decided elsewhere, for each request anew (`app/auth/callers.py`).
"""

import hashlib
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from sqlalchemy.orm import Session, sessionmaker

from app.auth.callers import key_of
from app.auth.credentials import key_in
from app.auth.logins import Logins, cookie_in

_REMEMBERED_SECONDS: Final = 5.0
_REMEMBERED_KEYS: Final = 10_000


@dataclass(frozen=True)
class Holder:
    """A key's id and name (both empty: no valid key), and its limits (None: none)."""

    key_id: str = ""
    name: str = ""
    max_requests_per_minute: int | None = None
    max_bytes_per_day: int | None = None


NOBODY: Final = Holder()


class Holders:
    """Finds holders; safe for threads."""

    def __init__(self, sessions: sessionmaker[Session], logins: Logins) -> None:
        """Look keys up through `sessions`, which may be read-only."""
        self._sessions, self._logins = sessions, logins
        self._lock = threading.Lock()
        self._known: dict[str, tuple[float, Holder]] = {}
        self._used = set[str]()

    def remembered(self, headers: Mapping[str, str]) -> Holder | None:
        """The holder without asking the database; None: it has to be asked."""
        token = _token_in(headers)
        if not token:
            return NOBODY
        with self._lock:
            until, holder = self._known.get(_digest(token), (0.0, NOBODY))
        return holder if until > time.monotonic() else None

    def find(self, headers: Mapping[str, str]) -> Holder:
        """The holder as the database has it now."""
        token = _token_in(headers)
        if not token:
            return NOBODY
        with self._sessions() as session:
            row = key_of(session, headers, self._logins)
        holder = NOBODY
        if row is not None:
            holder = Holder(row.id, row.name, row.max_requests_per_minute, row.max_bytes_per_day)
        with self._lock:
            if len(self._known) >= _REMEMBERED_KEYS:  # somebody tries keys out
                self._known.clear()
            self._known[_digest(token)] = (time.monotonic() + _REMEMBERED_SECONDS, holder)
            if holder.key_id:
                self._used.add(holder.key_id)
        return holder

    def take_used(self) -> set[str]:
        """Ids of the keys that were used since this was asked last: when that was is written down off requests' way."""
        with self._lock:
            used, self._used = self._used, set()
        return used


def _token_in(headers: Mapping[str, str]) -> str:
    """What the request shows: its key, or without one its login."""
    return key_in(headers) if "authorization" in headers else cookie_in(headers)


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()  # the keys themselves stay out of memory dumps
