"""One log line per request, one id that is in every line and every problem, and no stack trace for anybody outside."""

import asyncio
import re
import time
import uuid
from contextlib import AbstractContextManager, nullcontext

import structlog
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.database_problems import RETRY_AFTER_SECONDS
from app.api.metrics import observe
from app.api.problems import problem_response
from app.errors.outages import InternalError, Unavailable
from app.tracing import NO_SPAN, Span, request_span
from app.version import VERSION, VERSION_HEADER

_GIVEN_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_QUIET = frozenset({"/healthz", "/readyz", "/metrics"})

log = structlog.get_logger("streamline.http")


class RequestLogMiddleware:
    """Pure ASGI, the outermost of ours: names the request, logs it, and answers a fault with a problem document."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = _request_id(scope)
        status = sent = 0

        async def named(message: Message) -> None:
            nonlocal status, sent
            sent += len(message.get("body", b""))
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["X-Request-ID"], headers[VERSION_HEADER] = request_id, VERSION
            await send(message)

        began = time.perf_counter()
        with structlog.contextvars.bound_contextvars(request_id=request_id), _span(scope) as span:
            try:
                await self._app(scope, receive, named)
            except asyncio.CancelledError:
                # A stopping server gives its requests a grace, and then it cuts them off.
                if status:
                    raise  # as below
                await problem_response(_stopping(scope))(scope, receive, named)
            except Exception:
                log.exception("fault", method=scope["method"], path=scope["path"])
                if status:
                    raise  # half an answer is out: only cutting the connection tells the client
                fault = InternalError("The service has failed; its log says more under this request_id.")
                await problem_response(fault)(scope, receive, named)
            finally:
                write = log.debug if scope["path"] in _QUIET else log.info
                seconds = time.perf_counter() - began
                write("request", method=scope["method"], path=scope["path"], status=status, seconds=round(seconds, 4))
                route = observe(scope, status=status, seconds=seconds, body_bytes=sent)
                span.describe(
                    f"{scope['method']} {route}",
                    failed=f"{status}" if status >= 500 or not status else None,
                    http__request__method=scope["method"],
                    http__route=route,
                    http__response__status_code=status,
                    streamline__request_id=request_id,
                )


def _span(scope: Scope) -> AbstractContextManager[Span]:
    return nullcontext(NO_SPAN) if scope["path"] in _QUIET else request_span(scope["method"], scope["headers"])


def _request_id(scope: Scope) -> str:
    given = dict(scope["headers"]).get(b"x-request-id", b"").decode("latin-1")
    return given if _GIVEN_ID.fullmatch(given) else uuid.uuid4().hex


def _stopping(scope: Scope) -> Unavailable:
    """A thread goes on with what it has begun: only what may be done twice is to be sent again unseen."""
    if scope["method"] in {"GET", "HEAD"} or any(name == b"idempotency-key" for name, _ in scope["headers"]):
        return Unavailable(
            "The service stops; send the request again in a moment.", headers={"Retry-After": str(RETRY_AFTER_SECONDS)}
        )
    return Unavailable("The service stops; look whether this was done before you send it again.")
