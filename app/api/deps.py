"""What routes are given: the service's parts, and the caller with their scope."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, TypeVar

from celery import Celery
from fastapi import Depends, Request
from fastapi.security import HTTPBearer
from sqlalchemy.orm import Session, sessionmaker

from app.auth.callers import BadKeyError, CrossSiteError, identify
from app.auth.holders import Holders
from app.auth.logins import Logins
from app.auth.loopback import NotFromThisMachine
from app.auth.scopes import Scope
from app.errors import ServiceError
from app.errors.requests import CrossSiteRequest, ForeignRequest, InsufficientScope, InvalidCredentials
from app.hub.access import Caller as HubCaller
from app.hub.upstream.mirror import Mirror
from app.jobs.door import Door
from app.jobs.watching import Watcher
from app.provenance.signing import Signer
from app.settings import Settings
from app.storage.artefacts import ArtefactStore
from app.storage.blobs import BlobStore
from app.webhooks.dispatcher import Post

T = TypeVar("T")


@dataclass(frozen=True)
class Services:
    """Everything that a route may need; `create_app` makes it once."""

    settings: Settings
    sessions: sessionmaker[Session]
    read_sessions: sessionmaker[Session]
    """Never wait for SQLite's one writer."""
    blobs: BlobStore
    artefacts: ArtefactStore
    signer: Signer
    logins: Logins
    holders: Holders
    celery: Celery
    mirror: Mirror | None
    """Of the upstream hub, if there is one."""
    door: Door
    watcher: Watcher
    post: Post
    """What webhooks are sent with."""


@dataclass(frozen=True)
class Caller:
    """Who sends the request."""

    owner: str
    """Id of the API key; empty where the service has none."""
    scope: Scope
    name: str


def hub_caller(caller: Caller) -> HubCaller:
    """The same caller, as the hub asks what they may see."""
    return HubCaller(has_token=bool(caller.owner), name=caller.name, key=caller.owner, scope=caller.scope)


def services(request: Request) -> Services:
    """The parts that this application was made of."""
    found: Services = request.app.state.services
    return found


async def _parts(request: Request) -> Services:
    """As a coroutine: FastAPI gives each plain function among the dependencies a turn in its threads."""
    return services(request)


# Only described in OpenAPI by this; the check itself has to look at the database first.
_bearer = HTTPBearer(auto_error=False, description="An API key (`streamline keys create`). Needed once keys exist.")


def require(scope: Scope) -> Callable[..., Caller]:
    """A dependency that lets a caller pass whose key allows `scope`; while no key was ever made, everybody may."""

    def check(request: Request, _: Annotated[object, Depends(_bearer)]) -> Caller:
        parts = services(request)
        with parts.read_sessions() as session:
            return _admit(session, request, parts.logins, scope)

    return check


def require_and_read(scope: Scope, read: Callable[[Session, Request, Caller], T]) -> Callable[..., tuple[Caller, T]]:
    """As `require`, and what `read` then finds in the same session: one turn in the threads instead of two."""

    def check(request: Request, _: Annotated[object, Depends(_bearer)]) -> tuple[Caller, T]:
        parts = services(request)
        with parts.read_sessions() as session:
            caller = _admit(session, request, parts.logins, scope)
            return caller, read(session, request, caller)

    return check


def is_still_admitted(request: Request, scope: Scope) -> bool:
    """Whether the caller of a request whose answer goes on and on would be let in now, too."""
    parts = services(request)
    with parts.read_sessions() as session:
        try:
            _admit(session, request, parts.logins, scope)
        except ServiceError:
            return False
    return True


def _admit(session: Session, request: Request, logins: Logins, scope: Scope) -> Caller:
    try:
        identity = identify(session, request.method, request.headers, logins)
    except BadKeyError:
        raise InvalidCredentials(
            "The API key that was sent is not valid: it is mistyped, was revoked or has ended. Send a valid one as "
            "`Authorization: Bearer KEY`; the operator makes one with `streamline keys create`."
        ) from None
    except CrossSiteError:
        raise CrossSiteRequest(
            "A browser's login changes things only for this service's own pages. Send the API key as "
            "`Authorization: Bearer KEY` instead."
        ) from None
    except NotFromThisMachine as error:
        raise ForeignRequest(str(error)) from None
    if identity.scope is None:
        raise InvalidCredentials(
            "No API key was sent, and this service asks for one. Send it as `Authorization: Bearer KEY`; the operator "
            "makes one with `streamline keys create`."
        )
    caller = Caller(identity.owner, identity.scope, identity.name)
    request.state.caller = caller  # the pages' navigation shows what this caller may do, on a refusal too
    if not caller.scope.includes(scope):
        raise InsufficientScope(f"This needs a key of scope {scope.value}; the given one has {caller.scope.value}.")
    return caller


Parts = Annotated[Services, Depends(_parts)]
Reader = Annotated[Caller, Depends(require(Scope.READ))]
Submitter = Annotated[Caller, Depends(require(Scope.SUBMIT))]
Admin = Annotated[Caller, Depends(require(Scope.ADMIN))]
