"""Webhooks: endpoints that are told how jobs have ended, and the log of what they were sent."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from app.api.deps import Caller, Parts, Reader, Services, Submitter, hub_caller
from app.api.jobs import AUTH_ERRORS, BODY_ERRORS, PAGE_ERRORS
from app.api.problems import documented
from app.errors import references, resources
from app.webhooks import service
from app.webhooks.views import (
    CreatedWebhook,
    Delivery,
    DeliveryPage,
    DeliveryState,
    JobEnded,
    NewJobWebhook,
    NewWebhook,
    Webhook,
    WebhookPage,
)

router = APIRouter(prefix="/v1", tags=["webhooks"])
messages = APIRouter(tags=["webhooks"])
"""Not routes of this service: what receivers are to have, for the OpenAPI document."""

_NEW_ERRORS = (
    *BODY_ERRORS,
    references.BadWebhookUrl,
    resources.TooManyWebhooks,
)
Cursor = Annotated[str | None, Query(description="`next_cursor` of the page before.", max_length=200)]
Limit = Annotated[int, Query(ge=1, le=100, description="Entries per page.")]


@router.post("/webhooks", status_code=201, responses=documented(*_NEW_ERRORS, *AUTH_ERRORS))
def add_webhook(
    body: NewWebhook, request: Request, response: Response, parts: Parts, caller: Submitter
) -> CreatedWebhook:
    """Register an address that is told how jobs end from now on. The answer holds its secret, this once.

    Messages are POST requests as the Standard Webhooks specification (standardwebhooks.com) has them: any of its
    libraries verifies them with the secret. A message that no 2xx answers is sent again, over three days; one may come
    twice, with the same `webhook-id`. The answer 410 disables the endpoint, and so does taking nothing for days.
    """
    return _register(body, request, response, parts, caller)


@router.post(
    "/jobs/{job_id}/webhooks",
    status_code=201,
    responses=documented(resources.JobNotFound, *_NEW_ERRORS, *AUTH_ERRORS),
)
def add_job_webhook(
    job_id: str, body: NewJobWebhook, request: Request, response: Response, parts: Parts, caller: Submitter
) -> CreatedWebhook:
    """Register an address that is told how this one job ends; at once, where it has ended already."""
    return _register(body, request, response, parts, caller, job_id)


def _register(
    body: NewJobWebhook,
    request: Request,
    response: Response,
    parts: Services,
    caller: Caller,
    job_id: str | None = None,
) -> CreatedWebhook:
    service.check_url(body.url, parts.post.allowed)
    address = parts.settings.public_url or str(request.base_url)
    with parts.sessions.begin() as session:
        row, secret = service.register(
            session, body, hub_caller(caller), box=parts.post.box, service_url=address, job_id=job_id
        )
    response.headers["Location"] = f"/v1/webhooks/{row.id}"
    response.headers["Cache-Control"] = "no-store"
    return CreatedWebhook.with_secret(row, secret)


@router.get("/webhooks", responses=documented(*PAGE_ERRORS, *AUTH_ERRORS))
def list_webhooks(
    parts: Parts,
    caller: Reader,
    job: Annotated[str | None, Query(description="Only those of this one job.", max_length=64)] = None,
    cursor: Cursor = None,
    limit: Limit = 20,
) -> WebhookPage:
    """List the key's webhooks, newest first; a key of scope `admin` sees those of all keys."""
    with parts.read_sessions() as session:
        page = service.page(session, hub_caller(caller), job_id=job, cursor=cursor, limit=limit)
    return WebhookPage(
        items=[Webhook.of(row, page.muted.get(row.owner)) for row in page.rows], next_cursor=page.next_cursor
    )


@router.get("/webhooks/{webhook_id}", responses=documented(resources.WebhookNotFound, *AUTH_ERRORS))
def get_webhook(webhook_id: str, parts: Parts, caller: Reader) -> Webhook:
    """One webhook."""
    with parts.read_sessions() as session:
        row = service.find(session, webhook_id, hub_caller(caller))
        return Webhook.of(row, service.muted(session, row))


@router.delete("/webhooks/{webhook_id}", status_code=204, responses=documented(resources.WebhookNotFound, *AUTH_ERRORS))
def remove_webhook(webhook_id: str, parts: Parts, caller: Submitter) -> None:
    """Remove a webhook; what still waits for it is not sent."""
    with parts.sessions.begin() as session:
        service.remove(session, webhook_id, hub_caller(caller))


@router.post("/webhooks/{webhook_id}/enable", responses=documented(resources.WebhookNotFound, *AUTH_ERRORS))
def enable_webhook(webhook_id: str, parts: Parts, caller: Submitter) -> Webhook:
    """Tell a webhook that was disabled what happens from now on; its secret stays."""
    with parts.sessions.begin() as session:
        row = service.enable(session, webhook_id, hub_caller(caller))
        return Webhook.of(row, service.muted(session, row))


@router.post("/webhooks/{webhook_id}/rotate", responses=documented(resources.WebhookNotFound, *AUTH_ERRORS))
def rotate_secret(webhook_id: str, response: Response, parts: Parts, caller: Submitter) -> CreatedWebhook:
    """Give a webhook another secret. The answer holds it, this once.

    For 24 hours messages carry a signature of the old one too, so that receivers that know either verify them. An old
    one that somebody else knows is worthless at once after a second rotation.
    """
    with parts.sessions.begin() as session:
        row, secret = service.rotate(session, webhook_id, hub_caller(caller), box=parts.post.box)
        muted = service.muted(session, row)
    response.headers["Cache-Control"] = "no-store"
    return CreatedWebhook.with_secret(row, secret, muted)


@router.get(
    "/webhooks/{webhook_id}/deliveries",
    responses=documented(resources.WebhookNotFound, *PAGE_ERRORS, *AUTH_ERRORS),
)
def list_deliveries(
    webhook_id: str,
    parts: Parts,
    caller: Reader,
    state: Annotated[DeliveryState | None, Query(description="Only deliveries in this state.")] = None,
    cursor: Cursor = None,
    limit: Limit = 20,
) -> DeliveryPage:
    """What the webhook was sent and is to be sent, newest first: with which outcome, and when the next attempt is."""
    with parts.read_sessions() as session:
        page = service.deliveries_of(session, webhook_id, hub_caller(caller), state=state, cursor=cursor, limit=limit)
    return DeliveryPage(items=[Delivery.of(row) for row in page.rows], next_cursor=page.next_cursor)


@router.post(
    "/webhooks/{webhook_id}/deliveries/{delivery_id}/redeliver",
    status_code=202,
    responses=documented(
        resources.WebhookNotFound,
        resources.DeliveryNotFound,
        resources.WebhookDisabled,
        resources.WebhookMuted,
        *AUTH_ERRORS,
    ),
)
def redeliver(webhook_id: str, delivery_id: str, parts: Parts, caller: Submitter) -> Delivery:
    """Send a message again, now, whatever came of it before; if that fails, with all attempts of a new one."""
    with parts.sessions.begin() as session:
        return Delivery.of(service.redeliver(session, webhook_id, delivery_id, hub_caller(caller)))


@messages.post("job-ended", status_code=204)
def job_ended(body: JobEnded) -> None:
    """Sent when a job has ended, with the headers `webhook-id`, `webhook-timestamp` and `webhook-signature`.

    Answer with any 2xx to take it, with 410 to be sent nothing more.
    """
