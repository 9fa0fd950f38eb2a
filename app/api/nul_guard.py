"""No text in the database holds a NUL, and PostgreSQL refuses even to be asked about one.

So a path with a NUL names nothing, and a query with one is no valid query, whatever the database.
"""

import re
from urllib.parse import parse_qsl

from starlette.types import ASGIApp, Receive, Scope, Send

from app.api.problems import problem_response
from app.errors import ServiceError
from app.errors.requests import InvalidRequest, NotFound

_GUARDED = re.compile(r"/(v1/.*|jobs/.*|new|compare|models|datasets|keys|login|webhooks(/.*)?|workers)?", re.DOTALL)
"""The hub's routes answer in a form of their own."""


class NulGuardMiddleware:
    """Pure ASGI: refuses a NUL in the path or in the query of the service's own routes."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer with a problem."""
        problem = _problem(scope) if scope["type"] == "http" and _GUARDED.fullmatch(scope["path"]) else None
        if problem is None:
            await self._app(scope, receive, send)
        else:
            await problem_response(problem)(scope, receive, send)


def _problem(scope: Scope) -> ServiceError | None:
    if "\0" in scope["path"]:
        return NotFound("The path holds a NUL character (%00), and nothing here has one in its name; leave it out.")
    query = scope["query_string"].decode("latin-1")
    if "%00" not in query and "\0" not in query:
        return None
    name = next((name for name, value in parse_qsl(query, keep_blank_values=True) if "\0" in value), None)
    return InvalidRequest("The query holds a NUL character (%00); leave it out.", parameter=name)
