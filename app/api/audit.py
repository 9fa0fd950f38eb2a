"""Every request that may change something is in the audit log before its answer leaves."""

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.auth import audit
from app.auth.holders import Holder, Holders
from app.core.redaction import without_keys
from app.db.models import ApiKeyRow

_READING = frozenset({"GET", "HEAD", "OPTIONS"})
_BODYS_HOLDER = "bodys_holder"

log = structlog.get_logger(__name__)


def note_holder(request: Request, key: ApiKeyRow) -> None:
    """Name the key of a request that carries it in its body, as a login does: no header tells it."""
    setattr(request.state, _BODYS_HOLDER, Holder(key.id, key.name))


class AuditMiddleware:
    """Pure ASGI. Refused requests are recorded too, with their status."""

    def __init__(self, app: ASGIApp, *, holders: Holders, sessions: sessionmaker[Session]) -> None:
        self._app = app
        self._holders = holders
        self._sessions = sessions

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and record it when its answer begins."""
        if scope["type"] != "http" or scope["method"] in _READING:
            await self._app(scope, receive, send)
            return

        async def recorded(message: Message) -> None:
            if message["type"] == "http.response.start":
                request_id = str(structlog.contextvars.get_contextvars().get("request_id", ""))
                await run_in_threadpool(self._record, scope, message["status"], request_id)
            await send(message)

        await self._app(scope, receive, recorded)

    def _record(self, scope: Scope, status: int, request_id: str) -> None:
        entry = {
            "action": scope["method"][:16],
            "target": without_keys(scope["path"]),
            "status": status,
            "request_id": request_id,
        }
        try:
            headers = Headers(scope=scope)
            holder = scope.get("state", {}).get(_BODYS_HOLDER)
            holder = holder or self._holders.remembered(headers) or self._holders.find(headers)
            with self._sessions.begin() as session:
                audit.record(session, key_id=holder.key_id, key_name=holder.name, **entry)
        except SQLAlchemyError as error:
            # The change is done, or refused, in any case; the log has what the table cannot take.
            log.error("audit_not_written", error=type(error).__name__, **entry)
