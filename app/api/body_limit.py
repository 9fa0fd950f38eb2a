"""A limit on the bytes of a request's body, counted as they come in: Content-Length is only what a client says."""

import re
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.problems import problem_response
from app.errors.requests import BodyTooLarge


class _TooLarge(Exception):  # noqa: N818 - never leaves this module
    """Ends the reading of a body."""


class BodyLimitMiddleware:
    """Pure ASGI: answers 413 before or while the body is read, and closes the connection on what is left of it."""

    def __init__(self, app: ASGIApp, *, max_bytes: int, by_path: Mapping[str, int]) -> None:
        """Wrap `app`.

        Args:
            app: the application.
            max_bytes: the limit of every path that `by_path` does not name.
            by_path: regular expressions of whole paths that have limits of their own.
        """
        self._app = app
        self._max_bytes = max_bytes
        self._by_path = [(re.compile(pattern), limit) for pattern, limit in by_path.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with a counting `receive`."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = scope["path"].rstrip("/")
        limit = next((limit for pattern, limit in self._by_path if pattern.fullmatch(path)), self._max_bytes)
        if _declared(scope) > limit:
            await _refuse(limit, scope, receive, send)
            return
        seen = 0
        exceeded = started = False

        async def counted() -> Message:
            nonlocal seen, exceeded
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > limit:
                exceeded = True
                raise _TooLarge
            return message

        async def guarded(message: Message) -> None:
            nonlocal started
            if exceeded and not started:
                return  # whatever the application makes of the broken body: the answer is ours
            started = True
            await send(message)

        with suppress(_TooLarge):
            await self._app(scope, counted, guarded)
        if exceeded and not started:
            await _refuse(limit, scope, receive, send)


def _declared(scope: Scope) -> int:
    headers: dict[bytes, Any] = dict(scope["headers"])
    length = headers.get(b"content-length", b"0")
    return int(length) if length.isdigit() else 0


async def _refuse(limit: int, scope: Scope, receive: Receive, send: Send) -> None:
    error = BodyTooLarge(
        f"The body is longer than the {limit:,} bytes that this service takes here; send less.",
        headers={"Connection": "close", "X-Error-Message": f"The body is longer than {limit:,} bytes."},
    )
    await problem_response(error)(scope, receive, send)
