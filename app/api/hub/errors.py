"""The hub's errors as Hugging Face clients turn them into their own exceptions.

Over plain http the client goes by `X-Error-Code` and `X-Error-Message` alone.
"""

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute

from app.hub.errors import (
    BadName,
    BadRequest,
    EntryNotFound,
    ForeignRequest,
    GatedRepository,
    HubError,
    InvalidCredentials,
    NotAllowed,
    RepositoryNotFound,
    RevisionNotFound,
)


class HubRoute(APIRoute):
    """A route whose HubErrors become answers in the Hub's form."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Wrap the handler, dependencies included."""
        handler = super().get_route_handler()

        async def answer(request: Request) -> Response:
            try:
                return await handler(request)
            except HubError as error:
                return hub_error_response(error, has_token="authorization" in request.headers)

        return answer


def hub_error_response(error: HubError, *, has_token: bool) -> JSONResponse:
    """The answer that raises the client's exception of the same meaning."""
    status, code = _status_and_code(error, has_token=has_token)
    headers = {"X-Error-Message": _header_text(str(error))}
    if code:
        headers["X-Error-Code"] = code
    if isinstance(error, EntryNotFound):
        headers["X-Repo-Commit"] = error.commit  # lets the client remember that this commit has no such file
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse({"error": str(error)}, status, headers)


def _status_and_code(error: HubError, *, has_token: bool) -> tuple[int, str | None]:
    match error:
        case RepositoryNotFound():
            return (404 if has_token else 401), "RepoNotFound"
        case RevisionNotFound():
            return 404, "RevisionNotFound"
        case EntryNotFound():
            return 404, "EntryNotFound"
        case GatedRepository():
            return (403 if has_token else 401), "GatedRepo"
        case ForeignRequest() | NotAllowed():
            return 403, None
        case InvalidCredentials():
            return 401, None
        case BadName() | BadRequest():
            return 400, None
        case _:
            return 500, None


def _header_text(text: str) -> str:
    # A header holds one line of ASCII; what a client put into its URL may be anything.
    return " ".join(text.split()).encode("ascii", "backslashreplace").decode()
