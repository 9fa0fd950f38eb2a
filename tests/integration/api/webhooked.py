"""A service that may send webhooks to this machine, and sends when a test says so."""

from typing import Any, Final

import pytest
from sqlalchemy import delete, update

from app.db.clock import db_now
from app.db.models import ApiKeyRow, AuditRow, IdempotencyRow, JobRow, WebhookDeliveryRow, WebhookRow
from app.jobs import repository as jobs
from app.webhooks import backoff
from app.webhooks.dispatcher import deliver_next
from tests.integration.api.conftest import Service
from tests.webhook_receiver import Receiver

SETTINGS: Final[dict[str, object]] = {"webhook_private": ("127.0.0.1",), "reconcile_seconds": 3600}
"""Its own senders look once an hour."""


def emptied(service: Service) -> Service:
    """The service without jobs, keys and webhooks."""
    with service.sessions.begin() as session:
        for table in (WebhookRow, IdempotencyRow, JobRow, AuditRow, ApiKeyRow):
            session.execute(delete(table))
    return service


def add(service: Service, receiver: Receiver, path: str = "/v1/webhooks", **body: Any) -> dict[str, Any]:
    headers = body.pop("headers", None)
    answer = service.http.post(path, json={"url": receiver.url} | body, headers=headers)
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    receiver.secrets.append(made["secret"])
    return made


def ended_job(service: Service, how: str = "cancel", job: str | None = None, **more: Any) -> str:
    """The id of a job that has ended."""
    job_id: str = job or service.submit(**more)["id"]
    if how == "cancel":
        assert service.http.post(f"/v1/jobs/{job_id}/cancel").status_code == 202
        return job_id
    with service.sessions.begin() as session:
        claim = jobs.claim(session, job_id, owner="worker", lease_seconds=60)
        assert claim is not None
        result = {"repo": "demo/out", "revision": "0" * 40, "removed_layers": [9], "metrics": {}}
        jobs.succeed(session, job_id, claim.token, verdict="pass", gates=[], result=result)
    return job_id


def deliver(service: Service) -> int:
    """Make every attempt that is due; how many."""
    made = 0
    while deliver_next(service.parts.post):
        made += 1
    return made


def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """A failed delivery's next attempt is due when a test makes it due, however long the test takes."""
    monkeypatch.setattr(backoff, "SCHEDULE_SECONDS", tuple(max(600, wait) for wait in backoff.SCHEDULE_SECONDS))


def hasten(service: Service) -> None:
    """Make whatever waits for its next attempt due."""
    with service.sessions.begin() as session:
        session.execute(
            update(WebhookDeliveryRow)
            .where(WebhookDeliveryRow.next_attempt_at.is_not(None))
            .values(next_attempt_at=db_now(-1))
        )


def log_of(service: Service, webhook: dict[str, Any], **query: Any) -> list[dict[str, Any]]:
    answer = service.http.get(f"/v1/webhooks/{webhook['id']}/deliveries", params=query)
    assert answer.status_code == 200, answer.text
    items: list[dict[str, Any]] = answer.json()["items"]
    return items
