"""The page of one webhook: what it was sent and is to be sent, with which outcome, and a button to send it again."""

from typing import Annotated, Final
from urllib.parse import quote, urlencode

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import HTMLResponse

from app.api.deps import Parts, Reader, hub_caller
from app.db.models import WebhookDeliveryRow
from app.web.parts import part_of
from app.web.routing import PageRoute
from app.webhooks import service
from app.webhooks.deliveries import DELIVERED, FAILED, PENDING

router = APIRouter(include_in_schema=False, default_response_class=HTMLResponse, route_class=PageRoute)
_ON_A_PAGE: Final = 50
_STATES: Final = (PENDING, DELIVERED, FAILED)


@router.get("/webhooks/{webhook_id}")
def webhook(
    request: Request,
    parts: Parts,
    reader: Reader,
    webhook_id: str,
    state: Annotated[str, Query(max_length=16)] = "",
    cursor: Annotated[str | None, Query(max_length=200)] = None,
    part: Annotated[str, Query(max_length=16)] = "",
    if_none_match: Annotated[str | None, Header()] = None,
) -> Response:
    """The webhook's deliveries, newest first; with `part=list` the list alone, which an open page asks for again."""
    who = hub_caller(reader)
    chosen = state if state in _STATES else ""
    with parts.read_sessions() as session:
        row = service.find(session, webhook_id, who)
        muted = service.muted(session, row)
        page = service.deliveries_of(session, row.id, who, state=chosen or None, cursor=cursor, limit=_ON_A_PAGE)
    address = f"/webhooks/{quote(row.id, safe='')}"
    given = {"state": chosen} if chosen else {}
    shown = [(delivery.id, version(delivery)) for delivery in page.rows]
    return part_of(
        request,
        "delivery_list.html" if part else "webhook.html",
        [*shown, row.disabled_at is not None, muted],
        if_none_match=if_none_match if part else None,
        webhook=row,
        muted={row.owner: muted} if muted else {},
        deliveries=page.rows,
        version=version,
        state=chosen,
        states=_STATES,
        address=address,
        newest=f"{address}?{urlencode(given)}" if cursor else None,
        older=f"{address}?{urlencode({**given, 'cursor': page.next_cursor})}" if page.next_cursor else None,
        keep_days=parts.settings.webhook_keep_days,
    )


def version(delivery: WebhookDeliveryRow) -> str:
    """Changes with what the list shows of a delivery."""
    shown = (delivery.state, delivery.attempts, delivery.status_code, delivery.error, delivery.next_attempt_at)
    return " ".join(map(str, shown))
