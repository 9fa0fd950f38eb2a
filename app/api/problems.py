"""RFC 9457 problem documents: for our own errors, for what pydantic and the framework find, and for faults."""

import difflib
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel, Field
from sqlalchemy.exc import OperationalError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from starlette.exceptions import HTTPException
from starlette.routing import Match

from app.api import database_problems
from app.api.database_problems import RETRY_AFTER_SECONDS
from app.api.request_models import allowed_range, field_at, model_at
from app.auth.credentials import ask_for_key
from app.errors import ServiceError, outages, requests
from app.storage.blobs import StorageFull, StoreRefused, StoreUnavailable

MEDIA_TYPE = "application/problem+json"
_MAX_ERRORS = 50

log = structlog.get_logger(__name__)


class FieldError(BaseModel):
    """One of several things that are wrong with a request."""

    code: str = Field(description="Stable name of the kind of error.")
    detail: str = Field(description="What is wrong and what to do about it.")
    pointer: str | None = Field(None, description="JSON pointer (RFC 6901) of the field in the body.")
    parameter: str | None = Field(None, description="Name of the query, path or header parameter.")


class Problem(BaseModel):
    """A problem document (RFC 9457). With several errors, the members at the top are the first one's."""

    type: str = Field(description="URN of the kind of problem: `urn:streamline:problem:` and the code.")
    title: str = Field(description="The kind of problem in a few words; the same for every occurrence.")
    status: int = Field(description="The HTTP status.")
    code: str = Field(description="Stable name of the kind of problem, for programs.")
    detail: str = Field(description="What is wrong this time and what to do about it, for people.")
    pointer: str | None = Field(None, description="JSON pointer (RFC 6901) of the offending field in the body.")
    parameter: str | None = Field(None, description="Name of the offending query, path or header parameter.")
    errors: list[FieldError] | None = Field(
        None, description="Every error, where more than one kind of thing is wrong."
    )
    request_id: str | None = Field(None, description="What the service's log calls this request.")


def problem_response(error: ServiceError, all_errors: Sequence[ServiceError] = ()) -> JSONResponse:
    """The answer to a request that ended in `error`; `all_errors` are listed where the request has several faults."""
    problem = Problem(
        type=f"urn:streamline:problem:{error.code}",
        title=error.title,
        status=error.status,
        code=error.code,
        detail=error.detail,
        pointer=error.pointer,
        parameter=error.parameter,
        errors=[
            FieldError(code=one.code, detail=one.detail, pointer=one.pointer, parameter=one.parameter)
            for one in all_errors
        ]
        or None,
        request_id=structlog.contextvars.get_contextvars().get("request_id"),
    )
    headers = dict(error.headers)
    content = problem.model_dump(exclude_none=True)
    answer = JSONResponse(content, error.status, headers=headers, media_type=MEDIA_TYPE)
    if error.status == HTTPStatus.UNAUTHORIZED:
        ask_for_key(answer.headers)
    return answer


def documented(*kinds: type[ServiceError]) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route that may answer with these problems, for its OpenAPI entry."""
    by_status: dict[int, list[type[ServiceError]]] = {}
    for kind in kinds:
        by_status.setdefault(kind.status, []).append(kind)
    return {
        status: {
            "description": "\n".join(f"* `{kind.code}`: {kind.__doc__}" for kind in of_status),
            "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
        for status, of_status in by_status.items()
    }


def install_problems(app: FastAPI, routers: Sequence[APIRouter]) -> None:
    """Answer every error of this application, which includes `routers`, with a problem document."""
    app.state.routers = routers
    app.add_exception_handler(ServiceError, _service_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(HTTPException, _http_exception)
    for kind in (OperationalError, ProgrammingError, PoolTimeoutError):
        app.add_exception_handler(kind, _database)
    app.add_exception_handler(StorageFull, _storage_full)
    app.add_exception_handler(StoreRefused, _storage_unavailable)
    app.add_exception_handler(StoreUnavailable, _storage_unavailable)


async def _service_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, ServiceError)
    return problem_response(error)


async def _database(request: Request, error: Exception) -> Response:
    problem = await database_problems.problem_of(error, database_problems.read_sessions_of(request.app))
    if problem is None:
        raise error
    return problem_response(problem)


async def _storage_full(_request: Request, error: Exception) -> Response:
    log.warning("storage_full", detail=str(error))
    assert isinstance(error, StorageFull)
    free = "" if error.available is None else f" and {error.available:,} are free"
    return problem_response(outages.StorageFull(f"{error.needed:,} bytes are needed{free}. Ask the operator for room."))


async def _storage_unavailable(_request: Request, error: Exception) -> Response:
    log.error("storage_unavailable", detail=str(error))
    return problem_response(
        outages.StorageUnavailable(
            "The store of models and data does not answer; send the request again in a moment, or ask the operator.",
            headers={"Retry-After": str(RETRY_AFTER_SECONDS)},
        )
    )


async def _http_exception(request: Request, error: Exception) -> Response:
    """What the framework refuses by itself."""
    assert isinstance(error, HTTPException)
    headers = dict(error.headers or {})
    path = request.url.path
    known: ServiceError
    match error.status_code:
        case HTTPStatus.NOT_FOUND:
            known = requests.NotFound(f"There is nothing at {path!r}; GET /docs lists what there is.")
        case HTTPStatus.METHOD_NOT_ALLOWED:
            allowed = ", ".join(_methods(request))
            known = requests.MethodNotAllowed(
                f"{path!r} takes {allowed}, not {request.method}.", headers={"Allow": allowed}
            )
        case HTTPStatus.BAD_REQUEST:
            known = requests.MalformedBody("The body cannot be read; send one JSON object as application/json.")
        case HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
            known = requests.BodyTooLarge(str(error.detail), headers=headers)
        case _:
            status = HTTPStatus(error.status_code)
            return JSONResponse(
                {"type": "about:blank", "title": status.phrase, "status": status, "detail": str(error.detail)}
                | {"code": status.phrase.lower().replace(" ", "_")},
                status,
                headers=headers,
                media_type=MEDIA_TYPE,
            )
    return problem_response(known)


def _methods(request: Request) -> list[str]:
    """Every method that some route takes at this path; the framework names only the first route's."""
    found: set[str] = set()
    for route in (route for router in request.app.state.routers for route in router.routes):
        if route.matches(request.scope)[0] is not Match.NONE:
            found |= getattr(route, "methods", None) or set()
    return sorted(found)


# --- what pydantic finds ---------------------------------------------------------------------------------------------

_OWN_CODES: Mapping[str, type[ServiceError]] = {
    kind.code: kind
    for kind in (requests.NotAvailable, requests.GateNotMeasured, requests.ConflictingFields, requests.OutOfRange)
}
_LENGTHS = frozenset({"too_long", "too_short", "string_too_long", "string_too_short"})
_BOUNDS = frozenset({"greater_than", "greater_than_equal", "less_than", "less_than_equal", "finite_number"})


async def _validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    route = request.scope.get("route")
    body = route.body_field.field_info.annotation if isinstance(route, APIRoute) and route.body_field else None
    content_type = request.headers.get("content-type", "")
    found = [translate(one, body, content_type) for one in list(error.errors())[:_MAX_ERRORS]]
    return problem_response(found[0], found)


def translate(found: Mapping[str, Any], body: Any, content_type: str = "application/json") -> ServiceError:
    """Turn one of pydantic's findings into one of our errors.

    Args:
        found: as `ValidationError.errors()` gives it, `loc` beginning with `body`, `query`, `path` or `header`.
        body: the annotation of the body's model, to look up names and ranges; None where there is no body.
        content_type: of the request.
    """
    where, *path = found["loc"] or ("body",)
    if where != "body":
        kind, detail = _explain(found, None, str(path[0]) if path else where)
        return kind(detail, parameter=str(path[0]) if path else None)
    if found["type"] == "json_invalid":
        reason = found.get("ctx", {}).get("error", "invalid JSON")
        return requests.MalformedBody(
            f"The body is not valid JSON: {reason} at character {path[0]}. Send a JSON object."
        )
    if not path and "json" not in content_type.lower():
        return requests.UnsupportedMediaType("Send the body as JSON, with Content-Type: application/json.")
    name = _printable(".".join(str(part) for part in path)) or "the body"
    pointer = "".join(f"/{str(part).replace('~', '~0').replace('/', '~1')}" for part in path)
    if found["type"] == "extra_forbidden":
        return requests.UnknownField(_unknown(path, body), pointer=pointer)
    kind, detail = _explain(found, field_at(body, path), name)
    return kind(detail, pointer=pointer)


def _unknown(path: Sequence[Any], body: Any) -> str:
    parent = model_at(body, path[:-1])
    known = list(parent.model_fields) if parent else []
    where = ".".join(str(part) for part in path[:-1]) or "the request"
    near = difflib.get_close_matches(str(path[-1]), known, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"{str(path[-1])[:100]!r} is not a field of {where}; {hint}Known here: {', '.join(known)}."


def _explain(found: Mapping[str, Any], field: Any, name: str) -> tuple[type[ServiceError], str]:
    kind, context, given = found["type"], found.get("ctx", {}), _shown(found.get("input"))
    if own := _OWN_CODES.get(kind):
        return own, f"{name}: {found['msg']}."
    if kind == "missing":
        return requests.MissingField, f"{name} is missing; it is required."
    if kind in {"literal_error", "enum"}:
        return requests.NotAvailable, f"{name} is {given}; available in this version: {context['expected']}."
    if kind in _BOUNDS:
        allowed = allowed_range(field) or _bound(kind, context)
        return requests.OutOfRange, f"{name} is {given}; allowed: {allowed}."
    if kind in _LENGTHS:
        allowed = allowed_range(field)
        return requests.OutOfRange, f"{name}: {found['msg']}" + (f"; allowed: {allowed}." if allowed else ".")
    if kind.endswith(("_type", "_parsing", "_from_float", "_unicode")):
        return requests.WrongType, f"{name} is {given} but {_wanted(found['msg'])}."
    return requests.InvalidRequest, f"{name}: {found['msg']}."


def _bound(kind: str, context: Mapping[str, Any]) -> str:
    words = {
        "greater_than": ("more than", "gt"),
        "greater_than_equal": ("at least", "ge"),
        "less_than": ("less than", "lt"),
        "less_than_equal": ("at most", "le"),
    }
    if kind not in words:
        return "finite numbers"
    word, key = words[kind]
    return f"{word} {context[key]}"


def _wanted(message: str) -> str:
    text = message.removeprefix("Input should be ")
    return f"must be {text}" if text != message else message[:1].lower() + message[1:]


def _shown(value: Any) -> str:
    """A value of the request for a message: short, and printable whatever it is."""
    text = repr(value) if isinstance(value, str | int | float | bool | None) else f"a {_JSON_NAMES.get(type(value))}"
    text = text.encode("ascii", "backslashreplace").decode()
    return text if len(text) <= 80 else f"{text[:77]}..."


def _printable(name: str) -> str:
    """A name that the client may have made up, for a message."""
    return name if name.isprintable() else repr(name)[1:-1]


_JSON_NAMES: Mapping[type, str] = {
    dict: "JSON object",
    list: "JSON array",
    tuple: "JSON array",
    bytes: "sequence of bytes",
}
