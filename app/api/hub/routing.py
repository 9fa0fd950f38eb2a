"""How the hub's URLs become routes, and what every route is given.

`{rev}` is one percent-encoded segment; RawPathMiddleware keeps it in one piece. A repository is `namespace/name` or
`name`: every route exists in both forms, the short one first. That is unambiguous because no repository may be called
like a word of these URLs (app/hub/names.py).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Request
from sqlalchemy.orm import Session

from app.api.hub.errors import HubRoute
from app.auth.callers import BadKeyError, CrossSiteError, identify
from app.auth.loopback import NotFromThisMachine
from app.db.models import RepoRow
from app.hub.access import Caller, readable
from app.hub.context import HubContext
from app.hub.errors import ForeignRequest, InvalidCredentials
from app.hub.raw_path import decode_segment
from app.hub.upstream import ring

Endpoint = Callable[..., Any]


class RepoRoutes:
    """Routes about one repository: each is registered once with `{repo}` in its path, and served in both forms."""

    def __init__(self) -> None:
        self._forms: list[tuple[str, tuple[str, ...], Endpoint]] = []

    def route(self, form: str, *methods: str) -> Callable[[Endpoint], Endpoint]:
        """Register an endpoint under `form`, where `{repo}` stands for the repository."""

        def register(endpoint: Endpoint) -> Endpoint:
            self._forms.append((form, methods or ("GET",), endpoint))
            return endpoint

        return register

    def add_to(self, router: APIRouter) -> None:
        """Serve the short form of every route before the long form of any: see the module's docstring."""
        for repo in ("{name}", "{namespace}/{name}"):
            for form, methods, endpoint in self._forms:
                router.add_api_route(form.replace("{repo}", repo), endpoint, methods=list(methods))


def hub_router() -> APIRouter:
    """A router whose errors are the Hub's; not in our OpenAPI document, because it is the Hub's API."""
    return APIRouter(route_class=HubRoute, include_in_schema=False)


def hub_context(request: Request) -> HubContext:
    """What the routes work with."""
    context: HubContext = request.app.state.hub
    return context


def caller(request: Request) -> Caller:
    """Who asks; a key that is not valid is refused in the words that clients compare."""
    context = hub_context(request)
    with context.read_sessions() as session:
        try:
            identity = identify(session, request.method, request.headers, context.logins)
        except (BadKeyError, CrossSiteError):
            raise InvalidCredentials from None
        except NotFromThisMachine as error:
            raise ForeignRequest(str(error)) from None
    via = ring.passed_by(request.headers)
    return Caller(
        "authorization" in request.headers or bool(identity.owner), identity.name, identity.owner, identity.scope, via
    )


def repo_name(request: Request) -> str:
    """The repository that the URL names."""
    parts = [request.path_params[key] for key in ("namespace", "name") if key in request.path_params]
    return "/".join(decode_segment(part) for part in parts)


Context = Annotated[HubContext, Depends(hub_context)]
CallerOf = Annotated[Caller, Depends(caller)]
RepoName = Annotated[str, Depends(repo_name)]


@contextmanager
def reading(
    context: HubContext, who: Caller, name: str, revision: str | None = None, *, files: bool
) -> Iterator[tuple[Session, RepoRow]]:
    """A short read transaction, ended before the first byte of the answer leaves, on a repository that may be read.

    What is not here is copied from the upstream hub first: at this revision (default: `main`).
    """
    if context.mirror is not None:
        context.mirror.ensure(name, revision, who=who)
    with context.read_sessions() as session:
        yield session, readable(session, who, name, files=files)


def base_url(request: Request, context: HubContext) -> str:
    """The service's address as this client sees it, without a slash at its end."""
    return (context.public_url or str(request.base_url)).rstrip("/")


def next_link(request: Request, context: HubContext, path: str, query: dict[str, Any]) -> str:
    """The `Link` of a page that is not the last; absolute, because clients do not resolve a relative one."""
    arguments = urlencode({key: value for key, value in query.items() if value is not None}, doseq=True)
    return f'<{base_url(request, context)}{path}?{arguments}>; rel="next"'
