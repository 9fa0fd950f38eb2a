"""Keep an encoded slash apart from a real one.

A branch may be called `feature/x`; clients send it as the one segment `feature%2Fx`. Servers hand the path to a
framework decoded, where it looks like two segments. This middleware decodes the raw path of the hub's URLs anew, but
leaves `%2F` and `%25` as they are; the routes decode those with `decode_segment`.
"""

import re
from urllib.parse import unquote

from starlette.types import ASGIApp, Receive, Scope, Send

_KEPT = re.compile(rb"(%2[fF]|%25)")
_HUB = re.compile(rb"/api/models/|(?:/[^/]+){1,2}/(?:resolve|tree)/")


class RawPathMiddleware:
    """Pure ASGI, before the router."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, with the hub's paths decoded segment by segment."""
        raw = scope.get("raw_path")
        if scope["type"] == "http" and raw and _HUB.match(raw) and _KEPT.search(raw):
            scope = {**scope, "path": decode_path(raw)}
        await self._app(scope, receive, send)


def decode_path(raw: bytes) -> str:
    """The decoded path (UTF-8, other bytes replaced), in which only `%2F` and `%25` are still encoded."""
    # The odd pieces are what the pattern caught.
    pieces = _KEPT.split(raw)
    return "".join(
        piece.decode("ascii").upper() if index % 2 else unquote(piece.decode("latin-1"), encoding="utf-8")
        for index, piece in enumerate(pieces)
    )


def decode_segment(value: str) -> str:
    """What a path parameter of the hub's routes really says.

    `decode_path` has left `%2F` and `%25` encoded, and every other `%` came from a `%25`.
    """
    return value.replace("%2F", "/").replace("%25", "%")
