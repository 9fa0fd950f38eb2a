"""What can be done with endpoints and their deliveries. Functions take the caller's session and never commit.

An endpoint belongs to the API key that registered it. For other keys it does not exist; scope `admin` sees all.
"""

import threading
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy.orm import Session

from app.auth import keys
from app.db import cursors
from app.db.models import WebhookDeliveryRow, WebhookRow
from app.errors.outages import Unavailable
from app.errors.references import BadWebhookUrl
from app.errors.resources import DeliveryNotFound, TooManyWebhooks, WebhookDisabled, WebhookMuted, WebhookNotFound
from app.hub.access import Caller
from app.jobs import repository as job_repository
from app.jobs import service as jobs
from app.webhooks import deliveries, outbox, repository
from app.webhooks.addresses import AllowList
from app.webhooks.muting import why_untold
from app.webhooks.repository import Muted
from app.webhooks.signatures import SecretBox, new_secret
from app.webhooks.targets import ALLOWED, TargetRefusedError, addresses_of, parse
from app.webhooks.views import NewJobWebhook, NewWebhook

MOST_PER_KEY: Final = 20
MOST_PER_JOB: Final = 5
"""Of one key, for one job."""
_LONGEST_SERVICE_URL: Final = 500
_LOOKUPS: Final = threading.BoundedSemaphore(4)
"""A name server that never answers holds a thread of the API; not all of them."""
OLD_SECRET_SECONDS: Final = 86_400.0
"""How long the secret before a rotation signs too."""


@dataclass(frozen=True)
class Webhooks:
    """A page of endpoints, newest first."""

    rows: Sequence[WebhookRow]
    next_cursor: str | None
    muted: Mapping[str, Muted]
    """Owners in whose name nobody is told anything now."""


@dataclass(frozen=True)
class Deliveries:
    """A page of deliveries, newest first."""

    rows: Sequence[WebhookDeliveryRow]
    next_cursor: str | None


def check_url(url: str, allowed: AllowList) -> None:
    """Let pass what messages could be sent to now; asks the resolver, so do it outside of a transaction.

    Raises:
        BadWebhookUrl: the URL is none, or its host has an address that is neither public nor allowed.
        Unavailable: several are being looked up already.
    """
    if not _LOOKUPS.acquire(blocking=False):
        raise Unavailable(
            "The addresses of other webhooks are being looked up at this moment; send the request again in a second.",
            headers={"Retry-After": "1"},
        )
    try:
        addresses_of(parse(url), allowed)
    except TargetRefusedError as refusal:
        raise BadWebhookUrl(
            f"{refusal} Allowed: {ALLOWED}; the operator can allow others with STREAMLINE_WEBHOOK_PRIVATE.",
            pointer="/url",
        ) from None
    finally:
        _LOOKUPS.release()


def register(
    session: Session,
    wanted: NewJobWebhook,
    who: Caller,
    *,
    box: SecretBox,
    service_url: str,
    job_id: str | None = None,
) -> tuple[WebhookRow, str]:
    """Add an endpoint whose URL has been checked; the second value is its secret, which nobody is told again.

    One for a job (`job_id`) that has ended already is told of the end at once: whoever submits a job and then registers
    misses nothing, however fast the job was.

    Raises:
        JobNotFound: there is no such job.
        TooManyWebhooks: the key has as many as it may have.
    """
    if job_id is not None:
        jobs.find(session, job_id, who)
        job_repository.lock(session, job_id)  # its end comes before this endpoint or after it, not between
    _check_room(session, who.key, job_id)
    webhook_id, secret = uuid.uuid4().hex, new_secret()
    row = WebhookRow(
        id=webhook_id,
        owner=who.key,
        url=wanted.url,
        secret=box.seal(secret, webhook_id),
        events=list(wanted.events),
        jobs=wanted.jobs if isinstance(wanted, NewWebhook) else repository.OWN,
        job_id=job_id,
        description=wanted.description or "",
        service_url=service_url.rstrip("/")[:_LONGEST_SERVICE_URL],
    )
    repository.insert(session, row)
    if job_id is not None:
        outbox.tell(session, row, job_id)
    return row, secret


def _check_room(session: Session, owner: str, job_id: str | None) -> None:
    """Hold the owner's key until the transaction ends, so that two requests at once do not both find the last place."""
    if owner:
        keys.lock(session, owner)
    most = MOST_PER_KEY if job_id is None else MOST_PER_JOB
    if repository.count(session, owner, job_id) >= most:
        about = "" if job_id is None else " for one job"
        raise TooManyWebhooks(f"A key may have {most} webhooks{about}; remove one with DELETE /v1/webhooks/ID.")


def find(session: Session, webhook_id: str, who: Caller) -> WebhookRow:
    """The endpoint.

    Raises:
        WebhookNotFound: the caller has none of this id.
    """
    row = repository.get(session, webhook_id, who)
    if row is None:
        raise _unknown(webhook_id)
    return row


def page(session: Session, who: Caller, *, job_id: str | None, cursor: str | None, limit: int) -> Webhooks:
    """The caller's endpoints, newest first.

    Raises:
        InvalidRequest: the cursor is none that this service gave out.
    """
    rows = repository.page(session, who, job_id=job_id, before=cursors.decode(cursor), limit=limit + 1)
    shown = rows[:limit]
    following = cursors.encode(shown[-1].created_at, shown[-1].id) if len(rows) > limit else None
    return Webhooks(shown, following, repository.muted(session, {row.owner for row in shown}))


def muted(session: Session, webhook: WebhookRow) -> Muted | None:
    """Why the endpoint is told nothing any more, although nobody has disabled it; None: it is."""
    return repository.muted(session, {webhook.owner}).get(webhook.owner)


def remove(session: Session, webhook_id: str, who: Caller) -> None:
    """Forget the endpoint, its secret and its deliveries.

    Raises:
        WebhookNotFound: the caller has none of this id.
    """
    if not repository.remove(session, webhook_id, who):
        raise _unknown(webhook_id)


def enable(session: Session, webhook_id: str, who: Caller) -> WebhookRow:
    """Tell an endpoint that was disabled what happens from now on.

    Raises:
        WebhookNotFound: the caller has none of this id.
    """
    repository.enable(session, webhook_id, who)
    return find(session, webhook_id, who)


def rotate(session: Session, webhook_id: str, who: Caller, *, box: SecretBox) -> tuple[WebhookRow, str]:
    """Give the endpoint another secret, which nobody is told again; for a day messages are signed with both.

    Raises:
        WebhookNotFound: the caller has none of this id.
    """
    secret = new_secret()
    sealed = box.seal(secret, webhook_id)
    repository.rotate(session, webhook_id, who, sealed=sealed, old_seconds=OLD_SECRET_SECONDS)
    return find(session, webhook_id, who), secret


def deliveries_of(
    session: Session, webhook_id: str, who: Caller, *, state: str | None, cursor: str | None, limit: int
) -> Deliveries:
    """The endpoint's deliveries, newest first.

    Raises:
        WebhookNotFound: the caller has none of this id.
        InvalidRequest: the cursor is none that this service gave out.
    """
    find(session, webhook_id, who)
    rows = deliveries.page(session, webhook_id, state=state, before=cursors.decode(cursor), limit=limit + 1)
    shown = rows[:limit]
    return Deliveries(shown, cursors.encode(shown[-1].created_at, shown[-1].id) if len(rows) > limit else None)


def redeliver(session: Session, webhook_id: str, delivery_id: str, who: Caller) -> WebhookDeliveryRow:
    """Send a message again, now, whatever came of it before.

    Raises:
        WebhookNotFound: the caller has no such endpoint.
        DeliveryNotFound: the endpoint has no such delivery.
        WebhookDisabled: nothing is sent to it.
        WebhookMuted: nothing of this job may be sent to it.
    """
    webhook = find(session, webhook_id, who)
    delivery = deliveries.get(session, webhook_id, delivery_id)
    if delivery is None:
        raise DeliveryNotFound(
            f"The webhook has no delivery {delivery_id[:64]!r}; GET /v1/webhooks/{webhook_id}/deliveries lists them.",
            parameter="delivery_id",
        )
    if (reason := why_untold(session, webhook.owner, delivery.job_id)) is not None:
        raise WebhookMuted(f"The message is not sent to the webhook. {reason}")
    if webhook.disabled_at is not None:
        why = "has answered 410" if webhook.disabled_reason == repository.GONE else "has taken no message for days"
        raise WebhookDisabled(f"The webhook {why} and is disabled; POST /v1/webhooks/{webhook_id}/enable comes first.")
    deliveries.send_again(session, webhook_id, delivery_id)
    row = deliveries.get(session, webhook_id, delivery_id)
    assert row is not None, "it was there in the same transaction"
    return row


def _unknown(webhook_id: str) -> WebhookNotFound:
    return WebhookNotFound(
        f"There is no webhook {webhook_id[:64]!r}; GET /v1/webhooks lists those that are.", parameter="webhook_id"
    )
