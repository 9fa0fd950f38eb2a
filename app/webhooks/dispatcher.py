"""Sends what waits: any number of senders, in any number of processes, each with one message at a time.

A message counts as delivered when its receiver says so (2xx). An attempt whose sender dies is made again after its
lease: receivers get every message, and may get one twice; they tell by its id.
"""

import threading
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

import structlog
from prometheus_client import Counter
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from app.auth import audit
from app.db.models import WebhookRow
from app.webhooks import deliveries, repository
from app.webhooks.addresses import AllowList
from app.webhooks.backoff import delay_after
from app.webhooks.deliveries import Claim
from app.webhooks.sending import Answer, Sender, SendingError
from app.webhooks.signatures import SecretBox, SecretUnreadableError, signed_headers
from app.webhooks.targets import TargetRefusedError, addresses_of, parse

SENDERS: Final = 4
"""Threads per process: so many receivers may be slow before others wait for them."""
LEASE_SECONDS: Final = 120.0
"""Longer than the resolver and an attempt may take together."""
_CANDIDATES: Final = 8

ATTEMPTS: Final = Counter(
    "streamline_webhook_attempts", "Attempts to deliver a message, by how they ended", ["outcome"]
)

log = structlog.get_logger(__name__)


class _NotSentError(Exception):
    """Nothing is to be sent to this endpoint any more; the message says why."""


@dataclass(frozen=True)
class Post:
    """What a sender needs."""

    sessions: sessionmaker[Session]
    read_sessions: sessionmaker[Session]
    box: SecretBox
    allowed: AllowList
    sender: Sender


def run_sender(post: Post, stop: threading.Event, *, every_seconds: float) -> None:
    """Send until `stop` is set; a database that is away is asked again in the next round."""
    while not stop.is_set():
        try:
            if deliver_next(post):
                continue
        except SQLAlchemyError as error:
            log.warning("webhooks_wait_for_database", error=type(error).__name__)
        stop.wait(every_seconds)


def deliver_next(post: Post) -> bool:
    """Make one attempt, if a message is due; False when there was none for this sender."""
    claimed = _claim(post)
    if claimed is None:
        return False
    try:
        answer = _attempt(post, claimed)
    except _NotSentError as reason:
        _record_failure(post, claimed, error=str(reason), final=True)
    except (TargetRefusedError, SendingError, SecretUnreadableError) as failure:
        _record_failure(post, claimed, error=_sentence(failure))
    except SQLAlchemyError:
        raise
    except Exception:
        # A client chose the URL: whatever it brings to light must neither stop this thread nor come back for ever.
        log.exception("webhook_fault", webhook=claimed.webhook_id, delivery=claimed.delivery_id)
        _record_failure(post, claimed, error="A fault of the service; its log has the details.")
    else:
        _record(post, claimed, answer)
    return True


def _claim(post: Post) -> Claim | None:
    with post.read_sessions() as session:  # most rounds find nothing, and then nobody waits for SQLite's one writer
        found = deliveries.due(session, limit=_CANDIDATES)
    for delivery_id in found:
        with post.sessions.begin() as session:
            if claimed := deliveries.claim(session, delivery_id, lease_seconds=LEASE_SECONDS):
                return claimed
    return None


def _attempt(post: Post, claimed: Claim) -> Answer:
    """Send the message once.

    Raises:
        _NotSentError: the endpoint is disabled, or its key may not know of the job any more.
        SecretUnreadableError: its secret cannot be decrypted.
        TargetRefusedError: its host has an address, by now, that nothing is sent to.
        SendingError: no answer has come.
    """
    webhook = _endpoint(post, claimed)
    secret = post.box.open(webhook.secret, webhook.id)
    target = parse(webhook.url)
    addresses = addresses_of(target, post.allowed)
    headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
    headers |= signed_headers(secret, claimed.delivery_id, claimed.began, claimed.payload)
    return post.sender.post(target, addresses, claimed.payload.encode(), headers)


def _endpoint(post: Post, claimed: Claim) -> WebhookRow:
    with post.read_sessions() as session:
        webhook = repository.get(session, claimed.webhook_id)
        if webhook is None or webhook.disabled_at is not None:
            raise _NotSentError("The webhook is disabled.")
        if repository.job_heard_of(session, webhook.owner, claimed.job_id) is None:
            raise _NotSentError("Its API key is no longer valid, or may no longer know of the job.")
    return webhook


def _record(post: Post, claimed: Claim, answer: Answer) -> None:
    if 200 <= answer.status < 300:
        with post.sessions.begin() as session:
            deliveries.delivered(session, claimed, answer.status)
        ATTEMPTS.labels(outcome="delivered").inc()
        log.info("webhook_delivered", webhook=claimed.webhook_id, delivery=claimed.delivery_id, status=answer.status)
    elif answer.status == HTTPStatus.GONE:
        _disable(post, claimed)
    else:
        said = f"The receiver answered {answer.status}"
        error = f"{said}; redirects are not followed." if 300 <= answer.status < 400 else f"{said}."
        _record_failure(post, claimed, error=error, status=answer.status, retry_after=answer.retry_after)


def _record_failure(
    post: Post, claimed: Claim, *, error: str, status: int | None = None, retry_after: int = 0, final: bool = False
) -> None:
    delay = None if final else delay_after(claimed.failures + 1, retry_after=retry_after)
    with post.sessions.begin() as session:
        deliveries.failed(session, claimed, error=error, status=status, delay=delay)
    ATTEMPTS.labels(outcome="given_up" if delay is None else "failed").inc()
    log.info(
        "webhook_not_delivered",
        webhook=claimed.webhook_id,
        delivery=claimed.delivery_id,
        attempt=claimed.attempt,
        status=status,
        error=error,
        next_in_seconds=delay,
    )


def _disable(post: Post, claimed: Claim) -> None:
    """The receiver wants nothing more (RFC 9110, 15.5.11): neither this message nor any that waits."""
    with post.sessions.begin() as session:
        # The endpoint's row before those of its messages, as whoever removes it takes them.
        if repository.disable(session, claimed.webhook_id):
            target = f"/v1/webhooks/{claimed.webhook_id}"
            audit.record(
                session, key_id="", key_name=audit.BY_ITSELF, action="disable", target=target, status=HTTPStatus.GONE
            )
        deliveries.failed(session, claimed, error="The receiver answered 410.", status=HTTPStatus.GONE, delay=None)
        deliveries.give_up(session, claimed.webhook_id, error="The receiver answered 410 to another message.")
    ATTEMPTS.labels(outcome="gone").inc()
    log.info("webhook_disabled", webhook=claimed.webhook_id, delivery=claimed.delivery_id)


def _sentence(failure: Exception) -> str:
    """What the log of deliveries says: nothing of where a name leads to."""
    match failure:
        case SecretUnreadableError():
            return "Its secret cannot be decrypted: the service's signing key has changed. Register it again."
        case SendingError():
            return f"Not sent: {str(failure).rstrip('.')}."
        case _:
            return str(failure)
