"""Logins: what a browser holds in a cookie after a person has typed an API key.

The cookie names the key's id and a time, under an HMAC that only this service can make; the key itself is in no cookie.
Whether the key is still good is asked with every request, so that revoking it ends its logins at once.
"""

from collections.abc import Mapping
from http.cookies import CookieError, SimpleCookie
from pathlib import Path
from typing import Final

from app.hub.tickets import BadTicket, TicketOffice

COOKIE: Final = "streamline_login"
SECONDS: Final = 7 * 86400
_PURPOSE: Final = "login"


class Logins:
    """Makes and reads the cookie's value; all processes that share the key file do so as one."""

    def __init__(self, key_file: Path) -> None:
        """Use the key in `key_file`, which is made when it is first needed."""
        self._tickets = TicketOffice(key_file)

    def issue(self, key_id: str) -> str:
        """The cookie's value for whoever has shown this key."""
        return self._tickets.issue(_PURPOSE, {"key": key_id}, seconds=SECONDS)

    def key_id(self, headers: Mapping[str, str]) -> str | None:
        """The id of the key that the request's cookie was made for; None without a cookie that is good."""
        value = cookie_in(headers)
        if not value:
            return None
        try:
            content = self._tickets.read(_PURPOSE, value)
        except BadTicket:
            return None
        return str(content["key"])


def cookie_in(headers: Mapping[str, str]) -> str:
    """The cookie's value, good or not; empty without one (headers found by their lower-case names)."""
    text = headers.get("cookie", "")
    if COOKIE not in text:
        return ""
    try:
        found = SimpleCookie(text).get(COOKIE)
    except CookieError:
        return ""
    return found.value if found else ""
