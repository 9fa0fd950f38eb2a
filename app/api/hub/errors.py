"""The hub's errors as Hugging Face clients turn them into their own exceptions.

Over plain http the client goes by `X-Error-Code` and `X-Error-Message` alone.
"""

from collections.abc import Callable, Coroutine
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from starlette.requests import ClientDisconnect

from app.auth.credentials import ask_for_key
from app.hub.errors import (
    AlreadyExists,
    BadFile,
    BadName,
    BadRequest,
    BadXetObject,
    ContentLost,
    ContentMismatch,
    EntryNotFound,
    ForbiddenPullRequest,
    ForeignRequest,
    GatedRepository,
    HubError,
    InvalidCredentials,
    LinkExpired,
    NotAllowed,
    RepositoryNotFound,
    RevisionNotFound,
    StaleParent,
    TooLarge,
    UpstreamDamaged,
    UpstreamLoop,
    UpstreamRefused,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from app.hub.upstream.remote import LOOP_CODE
from app.storage.blobs import StorageError, StorageFull, StoreRefused, StoreUnavailable

RETRY_AFTER_SECONDS = 2

log = structlog.get_logger(__name__)


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
            except ClientDisconnect:  # in the middle of an upload; nobody hears the answer
                return Response(status_code=400)
            except RequestValidationError as error:
                return hub_error_response(BadRequest(_first(error)), has_token=True)
            except StorageError as error:
                return _storage_response(error)

        return answer


def hub_error_response(error: HubError, *, has_token: bool) -> JSONResponse:
    """The answer that raises the client's exception of the same meaning."""
    status, code = _status_and_code(error, has_token=has_token)
    text = _header_text(str(error))
    # Clients put a full stop behind the words of a 403.
    headers = {"X-Error-Message": text.removesuffix(".") if status == HTTPStatus.FORBIDDEN else text}
    if code:
        headers["X-Error-Code"] = code
    if isinstance(error, EntryNotFound):
        headers["X-Repo-Commit"] = error.commit  # lets the client remember that this commit has no such file
    if isinstance(error, ContentLost):
        headers["Cache-Control"] = "no-store"  # a repair or another upload brings it back
    body = {"error": f"{error}"} | ({"url": error.url} if isinstance(error, AlreadyExists) else {})
    if isinstance(error, InvalidCredentials):
        body["error"] += f". {error.advice}"
    answer = JSONResponse(body, status, headers)
    if status == HTTPStatus.UNAUTHORIZED:
        ask_for_key(answer.headers)
    return answer


def _storage_response(error: StorageError) -> JSONResponse:
    log.error("storage", error=type(error).__name__, detail=str(error))
    status = 507 if isinstance(error, StorageFull) else 503
    detail = _told(error)
    headers = {"X-Error-Message": _header_text(detail)}
    if status == 503:
        headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
    return JSONResponse({"error": detail}, status, headers)


def _told(error: StorageError) -> str:
    """What a client may know of a store's trouble: not where the store is."""
    match error:
        case StorageFull():
            free = "" if error.available is None else f" and {error.available:,} are free"
            return f"The store is full: {error.needed:,} bytes are needed{free}. Ask the operator for room."
        case StoreRefused() | StoreUnavailable():
            return "The store of models and data does not answer; try again in a moment, or ask the operator."
        case _:
            return str(error)  # names blobs, by their hashes


def _status_and_code(error: HubError, *, has_token: bool) -> tuple[int, str | None]:
    match error:
        case RepositoryNotFound():
            return (404 if has_token else 401), "RepoNotFound"
        case RevisionNotFound():
            return 404, "RevisionNotFound"
        case EntryNotFound():
            return 404, "EntryNotFound"
        case ContentLost():  # not 404, which clients remember; not 5xx, which they try again and again
            return 410, "ContentLost"
        case GatedRepository():
            return (403 if has_token else 401), "GatedRepo"
        case ForeignRequest() | NotAllowed() | LinkExpired():
            return 403, None
        case AlreadyExists():
            return 409, None
        case StaleParent():
            return 412, None
        case UpstreamRefused():
            return 403, "UpstreamRefused"
        case UpstreamDamaged():
            return 502, "UpstreamDamaged"
        case UpstreamTimeout():
            return 504, "UpstreamTimeout"
        case UpstreamLoop():
            return 508, LOOP_CODE
        case UpstreamUnavailable():
            return 502, "UpstreamUnavailable"
        case TooLarge():
            return 413, None
        case BadFile() | ContentMismatch():
            return 422, None
        case InvalidCredentials():
            return 401, None
        case BadName() | BadRequest() | BadXetObject() | ForbiddenPullRequest():
            return 400, "BadRequest"
        case _:
            return 500, None


def _first(error: RequestValidationError) -> str:
    found = error.errors()[0]
    where = ".".join(str(part) for part in found["loc"] if part not in {"body", "query"})
    return f"{where or 'The body'}: {found['msg']}."


def _header_text(text: str) -> str:
    # A header holds one line of ASCII; what a client put into its URL may be anything.
    return " ".join(text.split()).encode("ascii", "backslashreplace").decode()
