"""Per-key quotas on every route, the hub's too: 429 with `Retry-After` before the request is looked at."""

from collections.abc import Mapping

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.database_problems import problem_of
from app.api.problems import problem_response
from app.auth.holders import Holder, Holders
from app.auth.quotas import Usage, charge
from app.errors import ServiceError
from app.errors.requests import QuotaExceeded

log = structlog.get_logger(__name__)

_BYTES_UNIT = "bytes of request bodies per day"


class QuotaMiddleware:
    """Pure ASGI. A request counts when it comes; its body by its Content-Length, or, without one, when it was read."""

    def __init__(self, app: ASGIApp, *, holders: Holders, sessions: sessionmaker[Session]) -> None:
        self._app = app
        self._holders = holders
        self._sessions = sessions

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer that its key has used up its quota."""
        holder = await self._limited_holder(scope)
        if holder is None:
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        declared = _declared(headers)
        refusal = await self._refusal(holder, declared)
        if refusal is not None:
            await problem_response(refusal)(scope, receive, send)
            return
        read, charged = 0, declared

        async def charge_rest() -> None:
            nonlocal charged
            if holder.max_bytes_per_day is not None and read > charged:
                rest, charged = read - charged, read
                await run_in_threadpool(self._add_bytes, holder, rest)

        async def counted() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            return message

        async def charging(message: Message) -> None:
            if message["type"] == "http.response.start":
                await charge_rest()  # whoever has the answer finds it counted
            await send(message)

        try:
            await self._app(scope, counted, charging)
        finally:
            await charge_rest()

    async def _limited_holder(self, scope: Scope) -> Holder | None:
        if scope["type"] != "http":
            return None
        headers = Headers(scope=scope)
        holder = self._holders.remembered(headers)
        if holder is None:
            try:
                holder = await run_in_threadpool(self._holders.find, headers)
            except SQLAlchemyError:
                return None  # the route will say that the database is away
        limits = (holder.max_requests_per_minute, holder.max_bytes_per_day)
        return None if limits == (None, None) else holder

    async def _refusal(self, holder: Holder, body_bytes: int) -> ServiceError | None:
        try:
            return await run_in_threadpool(self._take, holder, body_bytes)
        except SQLAlchemyError as error:  # nothing is let through uncounted, and out here nobody else answers
            problem = await problem_of(error, self._sessions)
            if problem is None:
                raise
            return problem

    def _take(self, holder: Holder, body_bytes: int) -> QuotaExceeded | None:
        wanted = (
            (Usage.REQUESTS, 1, holder.max_requests_per_minute, "requests per minute"),
            (Usage.BYTES, body_bytes, holder.max_bytes_per_day, _BYTES_UNIT),
        )
        with self._sessions.begin() as session:
            for kind, amount, limit, unit in wanted:
                if limit is None or (kind is Usage.BYTES and amount == 0):
                    continue
                if (seconds := charge(session, holder.key_id, kind, amount, limit)) is not None:
                    return _exceeded(limit, unit, seconds, amount)
        return None

    def _add_bytes(self, holder: Holder, amount: int) -> None:
        try:
            with self._sessions.begin() as session:
                charge(session, holder.key_id, Usage.BYTES, amount, None)
        except SQLAlchemyError as error:
            log.warning("bytes_not_counted", key=holder.key_id, amount=amount, error=type(error).__name__)


def bytes_exceeded(limit: int, seconds: int, amount: int) -> QuotaExceeded:
    """What to answer a key that has sent its bytes of the day and wants to send `amount`, or never could."""
    return _exceeded(limit, _BYTES_UNIT, seconds, amount)


def _exceeded(limit: int, unit: str, seconds: int, amount: int) -> QuotaExceeded:
    if amount > limit:  # no waiting helps
        detail = (
            f"This key may use {limit:,} {unit}, and this request alone has {amount:,}: send less at a time, or ask "
            "the operator for a key with a higher limit."
        )
        return QuotaExceeded(detail, headers={"X-Error-Message": detail})
    detail = f"This key may use {limit:,} {unit}; send the request again in {seconds} s."
    # The hub's clients read the header, everybody else the problem document.
    return QuotaExceeded(detail, headers={"Retry-After": str(seconds), "X-Error-Message": detail})


def _declared(headers: Mapping[str, str]) -> int:
    length = headers.get("content-length", "0")
    return int(length) if length.isdigit() else 0
