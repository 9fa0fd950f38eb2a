"""Who sends a request, told from its headers: one rule for the API and for the hub."""

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy.orm import Session

from app.auth import ended_logins, keys
from app.auth.credentials import by_browser, key_in
from app.auth.logins import Logins
from app.auth.loopback import check_local, comes_from_here, is_safe, sent_by_own_page
from app.auth.scopes import Scope
from app.db.models import ApiKeyRow


class BadKeyError(Exception):
    """The header carries a key that is not valid (any more)."""


class CrossSiteError(Exception):
    """The request is to change something, and no page of this service sends it: a browser sent its cookie along."""


@dataclass(frozen=True)
class Identity:
    """A caller."""

    owner: str
    """Id of the API key; empty without one."""
    name: str
    scope: Scope | None
    """None: nobody in particular, at a service that has keys."""


def key_of(session: Session, headers: Mapping[str, str], logins: Logins) -> ApiKeyRow | None:
    """The valid key behind a request: the one that it carries, or without one that of the browser's login."""
    if "authorization" in headers:
        key = key_in(headers)
        return keys.find(session, key) if key else None
    login = logins.read(headers)
    return ended_logins.key_of(session, login) if login else None


def identify(session: Session, method: str, headers: Mapping[str, str], logins: Logins) -> Identity:
    """The caller behind a request's headers (found by their lower-case names).

    While no key was ever made the service listens on loopback alone, and whoever on this machine reaches it holds every
    scope.

    Raises:
        BadKeyError: a key is given and it is not valid.
        CrossSiteError: a login is to change something, and another site's page may have sent the request.
        NotFromThisMachine: there are no keys, and the request may have been sent for a page of somewhere else.
    """
    row = key_of(session, headers, logins)
    if row is not None and by_browser(headers) and not is_safe(method) and not comes_from_here(headers):
        raise BadKeyError  # a browser sends its key with the forms of foreign pages too
    if row is not None and "authorization" not in headers and not is_safe(method) and not sent_by_own_page(headers):
        raise CrossSiteError
    if row is not None:
        return Identity(row.id, row.name, Scope(row.scope))
    if not keys.exist(session):
        check_local(method, headers)
        return Identity("", "local", Scope.ADMIN)
    if "authorization" in headers:
        raise BadKeyError
    return Identity("", "anonymous", None)
