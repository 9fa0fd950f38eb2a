"""Sends what waits: any number of senders, in any number of processes, each with one message at a time.

A message counts as delivered when its receiver says so (2xx). An attempt whose sender dies is made again after its
lease: receivers get every message, and may get one twice; they tell by its id.
"""

import contextlib
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
from app.webhooks.muting import why_untold
from app.webhooks.sending import Answer, Sender, SendingError
from app.webhooks.signatures import SecretBox, SecretUnreadableError, signed_headers
from app.webhooks.targets import TargetRefusedError, addresses_of, parse

SENDERS: Final = 4
"""Threads per process: so many receivers may be slow before others wait for them."""
LEASE_SECONDS: Final = 120.0
"""Longer than the resolver and an attempt may take together."""
_CANDIDATES: Final = 8
_UNREADABLE: Final = "Its secret cannot be decrypted: the service's signing key has changed. Rotate its secret."

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
    disable_days: float
    """An endpoint that has taken nothing for so long is disabled."""


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
        _record_failure(post, claimed, error=str(reason), final=True, of_receiver=False)
    except SecretUnreadableError:
        _record_failure(post, claimed, error=_UNREADABLE, of_receiver=False)
    except TargetRefusedError as refusal:
        _record_failure(post, claimed, error=str(refusal))
    except SendingError as failure:
        _record_failure(post, claimed, error=f"Not sent: {str(failure).rstrip('.')}.")
    except SQLAlchemyError:
        raise
    except Exception:
        # A client chose the URL: whatever it brings to light must neither stop this thread nor come back for ever.
        log.exception("webhook_fault", webhook=claimed.webhook_id, delivery=claimed.delivery_id)
        _record_failure(post, claimed, error="A fault of the service; its log has the details.", of_receiver=False)
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
    secrets = _secrets(post, webhook, claimed)
    target = parse(webhook.url)
    addresses = addresses_of(target, post.allowed)
    headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
    headers |= signed_headers(secrets, claimed.delivery_id, claimed.began, claimed.payload)
    return post.sender.post(target, addresses, claimed.payload.encode(), headers)


def _endpoint(post: Post, claimed: Claim) -> WebhookRow:
    with post.read_sessions() as session:
        webhook = repository.get(session, claimed.webhook_id)
        if webhook is None or webhook.disabled_at is not None:
            raise _NotSentError("The webhook is disabled.")
        if (reason := why_untold(session, webhook.owner, claimed.job_id)) is not None:
            raise _NotSentError(reason)
    return webhook


def _secrets(post: Post, webhook: WebhookRow, claimed: Claim) -> list[str]:
    """What the message is signed with: for a while after a rotation, with the secret before it too."""
    found = [post.box.open(webhook.secret, webhook.id)]
    if webhook.old_secret and webhook.old_secret_until and claimed.began < webhook.old_secret_until:
        with contextlib.suppress(SecretUnreadableError):  # it was changed because of that, perhaps
            found.append(post.box.open(webhook.old_secret, webhook.id))
    return found


def _record(post: Post, claimed: Claim, answer: Answer) -> None:
    if 200 <= answer.status < 300:
        with post.sessions.begin() as session:
            # Here and below: the endpoint's row before those of its messages, as whoever removes it takes them.
            repository.attempt_succeeded(session, claimed.webhook_id)
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
    post: Post,
    claimed: Claim,
    *,
    error: str,
    status: int | None = None,
    retry_after: int = 0,
    final: bool = False,
    of_receiver: bool = True,
) -> None:
    """Write down how the attempt went; `of_receiver`: it counts against the endpoint."""
    delay = None if final else delay_after(claimed.failures + 1, retry_after=retry_after)
    with post.sessions.begin() as session:
        if of_receiver:
            repository.attempt_failed(session, claimed.webhook_id, claimed.began)
        # Only where a message is given up: one that comes after a quiet month has all its attempts first.
        disabled = of_receiver and delay is None and _disabled_as_failing(post, session, claimed, status)
        deliveries.failed(session, claimed, error=error, status=status, delay=delay)
        if disabled:
            deliveries.give_up(session, claimed.webhook_id, error="The webhook was disabled: it had failed for days.")
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


def _disabled_as_failing(post: Post, session: Session, claimed: Claim, status: int | None) -> bool:
    """Whether the endpoint has taken nothing for so long that it is told nothing more."""
    seconds = post.disable_days * 86_400
    if not repository.disable(session, claimed.webhook_id, repository.FAILING, failing_seconds=seconds):
        return False
    _note_disabled(session, claimed, repository.FAILING, status or 0)
    return True


def _note_disabled(session: Session, claimed: Claim, reason: str, status: int) -> None:
    target = f"/v1/webhooks/{claimed.webhook_id}"
    audit.record(session, key_id="", key_name=audit.BY_ITSELF, action="disable", target=target, status=status)
    log.info("webhook_disabled", webhook=claimed.webhook_id, delivery=claimed.delivery_id, reason=reason)


def _disable(post: Post, claimed: Claim) -> None:
    """The receiver wants nothing more (RFC 9110, 15.5.11): neither this message nor any that waits."""
    with post.sessions.begin() as session:
        if repository.disable(session, claimed.webhook_id, repository.GONE):
            _note_disabled(session, claimed, repository.GONE, HTTPStatus.GONE)
        deliveries.failed(session, claimed, error="The receiver answered 410.", status=HTTPStatus.GONE, delay=None)
        deliveries.give_up(session, claimed.webhook_id, error="The receiver answered 410 to another message.")
    ATTEMPTS.labels(outcome="gone").inc()
