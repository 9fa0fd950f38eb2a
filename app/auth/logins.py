"""Logins: what a browser holds in a cookie after a person has typed an API key.

The cookie names the key's id and a time, under an HMAC that only this service can make; the key itself is in no cookie.
Whether the key is still good, and whether the login was ended by logging out, is asked with every request: both end it
at once, on every replica.
"""

import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from starlette.requests import cookie_parser

from app.hub.tickets import BadTicket, TicketOffice

COOKIE: Final = "streamline_login"
SECONDS: Final = 7 * 86400
_PURPOSE: Final = "login"
_NONCE_BYTES: Final = 8  # two logins of one second are two: ending one leaves the other


@dataclass(frozen=True)
class Login:
    """What a cookie stands for."""

    key_id: str
    sha256: str
    """Of the cookie's value: what the login is called once it was ended."""


class Logins:
    """Makes and reads the cookie's value; all processes that share the key file do so as one."""

    def __init__(self, key_file: Path) -> None:
        """Use the key in `key_file`, which is made when it is first needed."""
        self._tickets = TicketOffice(key_file)

    def issue(self, key_id: str) -> str:
        """The cookie's value for whoever has shown this key."""
        content = {"key": key_id, "nonce": secrets.token_hex(_NONCE_BYTES)}
        return self._tickets.issue(_PURPOSE, content, seconds=SECONDS)

    def read(self, headers: Mapping[str, str]) -> Login | None:
        """What the request's cookie was made as, ended since or not; None without a cookie that is good."""
        value = cookie_in(headers)
        if not value:
            return None
        try:
            content = self._tickets.read(_PURPOSE, value)
        except BadTicket:
            return None
        return Login(str(content["key"]), hashlib.sha256(value.encode()).hexdigest())


def cookie_in(headers: Mapping[str, str]) -> str:
    """The cookie's value, good or not; empty without one (headers found by their lower-case names)."""
    text = headers.get("cookie", "")
    if COOKIE not in text:
        return ""
    return cookie_parser(text).get(COOKIE, "")  # leaves out what other services on this host set badly
