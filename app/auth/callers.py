"""Who sends a request, told from its headers: one rule for the API and for the hub."""

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy.orm import Session

from app.auth import keys
from app.auth.credentials import by_browser, key_in
from app.auth.loopback import check_local, comes_from_here, is_safe
from app.auth.scopes import Scope


class BadKeyError(Exception):
    """The header carries a key that is not valid (any more)."""


@dataclass(frozen=True)
class Identity:
    """A caller."""

    owner: str
    """Id of the API key; empty without one."""
    name: str
    scope: Scope | None
    """None: nobody in particular, at a service that has keys."""


def identify(session: Session, method: str, headers: Mapping[str, str]) -> Identity:
    """The caller behind a request's headers (found by their lower-case names).

    While no key was ever made the service listens on loopback alone, and whoever on this machine reaches it holds every
    scope.

    Raises:
        BadKeyError: a key is given and it is not valid.
        NotFromThisMachine: there are no keys, and the request may have been sent for a page of somewhere else.
    """
    key = key_in(headers)
    row = keys.find(session, key) if key else None
    if row is not None and by_browser(headers) and not is_safe(method) and not comes_from_here(headers):
        raise BadKeyError  # a browser sends its key with the forms of foreign pages too
    if row is not None:
        return Identity(row.id, row.name, Scope(row.scope))
    if not keys.exist(session):
        check_local(method, headers)
        return Identity("", "local", Scope.ADMIN)
    if "authorization" in headers:
        raise BadKeyError
    return Identity("", "anonymous", None)
