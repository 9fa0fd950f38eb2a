"""Tickets: what an upload's URL carries in place of a key.

Clients send parts of files without `Authorization`, so the URL itself says what may be sent with it and until when,
under an HMAC (RFC 2104) that only this service can make.
"""

import base64
import binascii
import hashlib
import hmac
import json
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from app.storage.staging import make_once

_KEY_BYTES = 32
_MAX_LENGTH = 2048


class BadTicket(Exception):  # noqa: N818 - named for what happened
    """The ticket was not made here, was made for something else, or is too old."""


class TicketOffice:
    """Makes and reads tickets; all processes that share the key file do so as one."""

    def __init__(self, key_file: Path, *, now: Callable[[], float] = time.time) -> None:
        """Use the key in `key_file`, which is made when it is first needed."""
        self._key_file = key_file
        self._now = now
        self._loaded: bytes | None = None

    def issue(self, purpose: str, content: dict[str, Any], *, seconds: int) -> str:
        """A ticket for `purpose` that is good for so many seconds; it can stand in a URL."""
        body = json.dumps([purpose, int(self._now()) + seconds, content], separators=(",", ":")).encode()
        return f"{_encode(body)}.{_encode(self._mac(body))}"

    def read(self, purpose: str, ticket: str) -> dict[str, Any]:
        """What the ticket was made with.

        Raises:
            BadTicket: see there.
        """
        text = ticket.partition(".")[0]
        try:
            body = _decode(text)
        except (binascii.Error, ValueError):
            raise BadTicket from None
        # The text itself is compared: several would decode to the same bytes.
        made = f"{_encode(body)}.{_encode(self._mac(body))}"
        if len(ticket) > _MAX_LENGTH or not hmac.compare_digest(ticket.encode(), made.encode()):
            raise BadTicket
        of, expires, content = json.loads(body)
        if of != purpose or expires < self._now():
            raise BadTicket
        found: dict[str, Any] = content
        return found

    def _mac(self, body: bytes) -> bytes:
        return hmac.new(self._key(), body, hashlib.sha256).digest()

    def _key(self) -> bytes:
        if self._loaded is None:
            if not self._key_file.exists():
                make_once(self._key_file, secrets.token_bytes(_KEY_BYTES))
            self._loaded = self._key_file.read_bytes()
        return self._loaded


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _decode(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
