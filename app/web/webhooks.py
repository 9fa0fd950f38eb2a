"""The page of webhooks: who is told how jobs end, who takes it, and who was disabled and why."""

from typing import Annotated, Final

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse

from app.api.deps import Parts, Reader, hub_caller
from app.web.rendering import render
from app.web.routing import PageRoute
from app.webhooks import service

router = APIRouter(include_in_schema=False, default_response_class=HTMLResponse, route_class=PageRoute)
_ON_A_PAGE: Final = 50


@router.get("/webhooks")
def webhooks(
    request: Request, parts: Parts, reader: Reader, cursor: Annotated[str | None, Query(max_length=200)] = None
) -> HTMLResponse:
    """The key's webhooks, newest first; for scope `admin` those of all keys."""
    with parts.read_sessions() as session:
        page = service.page(session, hub_caller(reader), job_id=None, cursor=cursor, limit=_ON_A_PAGE)
    return render(
        request,
        "webhooks.html",
        webhooks=page.rows,
        muted=page.muted,
        disable_days=parts.settings.webhook_disable_days,
        older=f"/webhooks?cursor={page.next_cursor}" if page.next_cursor else None,
    )
