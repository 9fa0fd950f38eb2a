"""Secrets that change while messages come, endpoints that take nothing for days, a log that does not grow for ever."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select, update

from app import upkeep
from app.auth import audit
from app.cli.application import run
from app.client import Streamline
from app.db.clock import db_now
from app.db.models import WebhookDeliveryRow, WebhookRow
from app.webhooks.backoff import SCHEDULE_SECONDS
from tests.integration.api import webhooked
from tests.integration.api.conftest import Service, problem_of
from tests.integration.api.webhooked import add, deliver, emptied, ended_job, hasten, log_of, unhurried
from tests.webhook_receiver import Receiver

SETTINGS = webhooked.SETTINGS
DAY = 86_400


@pytest.fixture
def service(running_service: Service, monkeypatch: pytest.MonkeyPatch) -> Service:
    unhurried(monkeypatch)
    return emptied(running_service)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver().listening() as found:
        yield found


def shown(service: Service, webhook: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = service.http.get(f"/v1/webhooks/{webhook['id']}").json()
    return found


def rotated(service: Service, webhook: dict[str, Any]) -> dict[str, Any]:
    answer = service.http.post(f"/v1/webhooks/{webhook['id']}/rotate")
    assert answer.status_code == 200, answer.text
    assert answer.headers["cache-control"] == "no-store"
    found: dict[str, Any] = answer.json()
    return found


def told(service: Service, receiver: Receiver, secret: str) -> bool:
    """Whether a receiver that knows this secret alone takes the message about one more job."""
    receiver.secrets = [secret]
    job = ended_job(service)
    deliver(service)
    return job in str(receiver.taken)


def signatures(receiver: Receiver) -> list[str]:
    return receiver.requests[-1][1]["webhook-signature"].split()


def change(service: Service, **values: Any) -> None:
    with service.sessions.begin() as session:
        session.execute(update(WebhookRow).values(values))


def give_up(service: Service) -> None:
    """Let every message that waits fail until it is given up."""
    for _ in range(len(SCHEDULE_SECONDS) + 1):
        deliver(service)
        hasten(service)


# --- rotation --------------------------------------------------------------------------------------------------------


def test_while_a_secret_changes_a_receiver_that_knows_either_takes_every_message(
    service: Service, receiver: Receiver
) -> None:
    webhook = add(service, receiver)
    new = rotated(service, webhook)
    assert new["secret"] != webhook["secret"]
    until = datetime.fromisoformat(new["old_secret_until"]) - datetime.fromisoformat(webhook["created_at"])
    assert timedelta(hours=24) <= until < timedelta(hours=24, minutes=5)
    assert told(service, receiver, webhook["secret"])
    assert told(service, receiver, new["secret"])
    assert len(signatures(receiver)) == 2
    assert "whsec_" not in str(shown(service, webhook))
    with service.sessions() as session:
        stored = str(session.execute(select(WebhookRow.__table__)).all())
        assert not any(secret in stored for secret in (webhook["secret"], new["secret"]))
    change(service, old_secret_until=db_now(-1))
    assert not told(service, receiver, webhook["secret"])
    assert told(service, receiver, new["secret"])
    assert len(signatures(receiver)) == 1


def test_after_a_second_rotation_a_secret_that_somebody_else_knows_is_worthless(
    service: Service, receiver: Receiver
) -> None:
    webhook = add(service, receiver)
    between, last = rotated(service, webhook)["secret"], rotated(service, webhook)["secret"]
    assert not told(service, receiver, webhook["secret"])
    assert told(service, receiver, between)
    assert told(service, receiver, last)


def test_a_rotation_mends_an_endpoint_whose_secret_cannot_be_read_any_more(
    service: Service, receiver: Receiver
) -> None:
    webhook = add(service, receiver)
    change(service, secret=service.parts.post.box.seal("whsec_AAAA", "another endpoint"))
    ended_job(service)
    deliver(service)
    assert "Rotate its secret" in log_of(service, webhook)[0]["error"]
    assert shown(service, webhook)["failing_since"] is None, "that is no fault of the receiver's"
    assert told(service, receiver, rotated(service, webhook)["secret"])


def test_the_client_and_the_command_rotate(
    service: Service, receiver: Receiver, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    webhook = add(service, receiver)
    with Streamline(service.url) as client:
        assert told(service, receiver, client.rotate_webhook(webhook["id"])["secret"])
    monkeypatch.setenv("STREAMLINE_URL", service.url)
    assert run(["webhooks", "rotate", webhook["id"]]) == 0
    said = capsys.readouterr()
    assert "signs too until" in said.err
    assert told(service, receiver, said.out.strip())
    assert problem_of(service.http.post("/v1/webhooks/none/rotate"), 404)["code"] == "webhook_not_found"


# --- endpoints that take nothing -------------------------------------------------------------------------------------


def test_an_endpoint_that_has_taken_nothing_for_days_is_disabled_with_a_reason_until_it_is_enabled(
    service: Service, receiver: Receiver, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    webhook = add(service, receiver)
    receiver.status = 503
    ended_job(service)
    give_up(service)
    assert shown(service, webhook)["disabled_at"] is None, "it has failed since a moment ago"
    assert shown(service, webhook)["failing_since"] is not None
    change(service, failing_since=db_now(-6 * DAY))
    ended_job(service)
    deliver(service)
    ended_job(service)
    assert shown(service, webhook)["disabled_at"] is None, "a message after a quiet time has all its attempts first"
    give_up(service)
    disabled = shown(service, webhook)
    assert disabled["disabled_at"] is not None
    assert disabled["disabled_reason"] == "failing"
    assert {one["state"] for one in log_of(service, webhook)} == {"failed"}
    with service.sessions() as session:
        entries = [(row.key_name, row.action, row.target, row.status) for row in audit.recent(session)]
    assert entries.count((audit.BY_ITSELF, "disable", f"/v1/webhooks/{webhook['id']}", 503)) == 1
    refused = service.http.post(
        f"/v1/webhooks/{webhook['id']}/deliveries/{log_of(service, webhook)[0]['id']}/redeliver"
    )
    assert "no message for days" in problem_of(refused, 409)["detail"]
    page = service.http.get("/webhooks", headers={"Accept": "text/html"}).text
    assert "it took no message for days" in page
    monkeypatch.setenv("STREAMLINE_URL", service.url)
    assert run(["webhooks", "list"]) == 0
    assert "disabled (failing)" in capsys.readouterr().out
    ended_job(service)
    assert len(log_of(service, webhook)) == 3, "nothing more is written down"

    enabled = service.http.post(f"/v1/webhooks/{webhook['id']}/enable").json()
    assert [enabled[name] for name in ("disabled_at", "disabled_reason", "failing_since")] == [None] * 3
    receiver.status = 204
    assert told(service, receiver, webhook["secret"])


def test_one_message_that_is_taken_ends_a_time_of_failures(service: Service, receiver: Receiver) -> None:
    webhook = add(service, receiver)
    receiver.status = 500
    ended_job(service)
    deliver(service)
    change(service, failing_since=db_now(-6 * DAY))
    receiver.status = 200
    assert told(service, receiver, webhook["secret"])
    assert shown(service, webhook)["failing_since"] is None
    receiver.status = 500
    give_up(service)
    assert shown(service, webhook)["disabled_at"] is None


def test_the_answer_gone_is_told_from_failures(service: Service, receiver: Receiver) -> None:
    webhook = add(service, receiver)
    receiver.status = 410
    ended_job(service)
    deliver(service)
    assert shown(service, webhook)["disabled_reason"] == "gone"


# --- what is over ----------------------------------------------------------------------------------------------------


def test_what_was_sent_is_kept_for_a_while_and_removed_in_bounded_batches(
    service: Service, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "BATCH", 2)
    webhook = add(service, receiver)
    jobs = [ended_job(service) for _ in range(8)]
    deliver(service)
    receiver.status = 500
    waiting = ended_job(service)
    deliver(service)

    def age(job: str, **values: Any) -> None:
        with service.sessions.begin() as session:
            session.execute(update(WebhookDeliveryRow).where(WebhookDeliveryRow.job_id == job).values(values))

    old = db_now(-31 * DAY)
    for job in [*jobs[:7], waiting]:
        age(job, created_at=old, last_attempt_at=old)
    age(jobs[0], state="failed")
    age(jobs[5], last_attempt_at=db_now(-DAY))
    age(jobs[6], created_at=db_now(-29 * DAY), last_attempt_at=db_now(-29 * DAY))
    assert upkeep.sweep(service.sessions, keep_days=30)["deliveries"] == 5
    left = {one["job_id"] for one in log_of(service, webhook)}
    assert left == {*jobs[5:], waiting}, "what was sent again lately, what is young, and what waits"
    assert upkeep.sweep(service.sessions, keep_days=30)["deliveries"] == 0


def test_a_secret_that_signs_nothing_any_more_is_removed(service: Service, receiver: Receiver) -> None:
    webhook = add(service, receiver)
    rotated(service, webhook)
    assert upkeep.sweep(service.sessions, keep_days=30)["old_secrets"] == 0
    change(service, old_secret_until=db_now(-1))
    assert upkeep.sweep(service.sessions, keep_days=30)["old_secrets"] == 1
    with service.sessions() as session:
        assert session.scalars(select(WebhookRow.old_secret)).all() == [None]
    assert shown(service, webhook)["old_secret_until"] is None
