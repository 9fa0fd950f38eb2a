"""Webhooks from their registration to a real receiver, which checks every message with the reference library."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from sqlalchemy import func, select, update

from app.auth import audit, keys
from app.auth.scopes import Scope
from app.cli.application import run
from app.client import ProblemError, Streamline
from app.db.clock import db_now
from app.db.models import WebhookDeliveryRow, WebhookRow
from app.webhooks.backoff import SCHEDULE_SECONDS
from app.webhooks.dispatcher import SENDERS, deliver_next
from app.webhooks.service import MOST_PER_JOB, MOST_PER_KEY
from tests.integration.api import webhooked
from tests.integration.api.conftest import JOB, Service, problem_of, running, settings_for
from tests.integration.api.webhooked import add, deliver, emptied, ended_job, hasten, log_of, unhurried
from tests.service_process import wait_until
from tests.webhook_receiver import Receiver

SETTINGS = webhooked.SETTINGS


@pytest.fixture
def service(running_service: Service, monkeypatch: pytest.MonkeyPatch) -> Service:
    """A service without jobs, keys and webhooks."""
    unhurried(monkeypatch)
    return emptied(running_service)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver().listening() as found:
        yield found


# --- what is delivered -----------------------------------------------------------------------------------------------


def test_the_end_of_a_job_is_told_signed_and_once(service: Service, receiver: Receiver) -> None:
    webhook = add(service, receiver)
    job = ended_job(service, "succeed", labels={"run": "7"})
    assert deliver(service) == 1
    ((message_id, message),) = receiver.taken
    assert message["type"] == "job.succeeded"
    seen = service.http.get(f"/v1/jobs/{job}").json()
    assert message["timestamp"] == seen["finished_at"]
    assert message["data"] == {
        "id": job,
        "state": "succeeded",
        "verdict": "pass",
        "model": "demo/stories-24l",
        "output": f"demo/out@{'0' * 40}",
        "labels": {"run": "7"},
        "error_code": None,
        "job_url": f"{service.url}/v1/jobs/{job}",
        "report_url": f"{service.url}/v1/jobs/{job}/report",
    }
    assert service.http.get(message["data"]["job_url"]).status_code == 200
    (_, headers) = receiver.requests[0]
    assert headers["content-type"] == "application/json"
    assert headers["host"] == f"127.0.0.1:{receiver.port}"
    (delivery,) = log_of(service, webhook)
    assert delivery["id"] == message_id == headers["webhook-id"]
    assert (delivery["state"], delivery["attempts"], delivery["status_code"]) == ("delivered", 1, 204)
    assert (delivery["error"], delivery["next_attempt_at"], delivery["job_id"]) == (None, None, job)
    assert deliver(service) == 0


def test_events_are_filtered(service: Service, receiver: Receiver) -> None:
    add(service, receiver, events=["job.failed", "job.succeeded"])
    ended_job(service)
    succeeded = ended_job(service, "succeed")
    deliver(service)
    assert [message["data"]["id"] for _, message in receiver.taken] == [succeeded]


def test_a_receiver_that_was_down_gets_every_message_once_it_is_back(service: Service) -> None:
    receiver = Receiver()
    with receiver.listening():
        webhook = add(service, receiver)
    told = {ended_job(service) for _ in range(5)}
    for attempt in range(1, 4):
        assert deliver(service) == 5
        waiting = log_of(service, webhook)
        assert {delivery["attempts"] for delivery in waiting} == {attempt}
        assert {delivery["error"] for delivery in waiting} == {"Not sent: no connection comes about."}
        assert all(delivery["next_attempt_at"] > delivery["last_attempt_at"] for delivery in waiting)
        assert deliver(service) == 0, "nothing is tried again at once"
        hasten(service)
    with receiver.listening():
        assert deliver(service) == 5
    assert {message["data"]["id"] for _, message in receiver.taken} == told
    assert len(receiver.taken) == 5
    assert {delivery["state"] for delivery in log_of(service, webhook)} == {"delivered"}


def test_a_receiver_that_never_takes_it_is_given_up_after_all_attempts(service: Service, receiver: Receiver) -> None:
    webhook = add(service, receiver)
    receiver.status = 500
    ended_job(service)
    for _ in range(len(SCHEDULE_SECONDS) + 1):
        assert deliver(service) == 1
        hasten(service)
    assert deliver(service) == 0
    (delivery,) = log_of(service, webhook, state="failed")
    assert delivery["attempts"] == len(SCHEDULE_SECONDS) + 1
    assert (delivery["status_code"], delivery["next_attempt_at"]) == (500, None)
    assert len({headers["webhook-id"] for _, headers in receiver.requests}) == 1


def test_a_receiver_is_left_alone_for_as_long_as_it_asks(service: Service, receiver: Receiver) -> None:
    webhook = add(service, receiver)
    receiver.status, receiver.headers = 429, {"Retry-After": "3000"}
    ended_job(service)
    deliver(service)
    with service.sessions() as session:
        query = select(WebhookDeliveryRow.next_attempt_at, db_now()).where(
            WebhookDeliveryRow.webhook_id == webhook["id"]
        )
        following, now = session.execute(query).one()
    assert following is not None
    assert 2900 < (following - now).total_seconds() < 3700


def test_a_redirect_is_a_failure_and_is_not_followed(service: Service, receiver: Receiver) -> None:
    with Receiver().listening() as elsewhere:
        webhook = add(service, receiver)
        elsewhere.secrets = receiver.secrets
        receiver.status, receiver.headers = 308, {"Location": elsewhere.url}
        ended_job(service)
        deliver(service)
    assert len(receiver.requests) == 1
    assert elsewhere.requests == []
    (delivery,) = log_of(service, webhook)
    assert (delivery["state"], delivery["status_code"]) == ("pending", 308)
    assert "redirects are not followed" in delivery["error"]


def test_an_endpoint_that_is_gone_is_disabled_until_it_is_enabled(service: Service, receiver: Receiver) -> None:
    webhook = add(service, receiver)
    receiver.status = 410
    first, second = ended_job(service), ended_job(service)
    assert deliver(service) == 1, "the second is not even tried"
    shown = service.http.get(f"/v1/webhooks/{webhook['id']}").json()
    assert shown["disabled_at"] is not None
    assert {delivery["state"] for delivery in log_of(service, webhook)} == {"failed"}
    ended_job(service)
    assert len(log_of(service, webhook)) == 2, "nothing more is written down"
    with service.sessions() as session:
        assert [(row.key_name, row.action, row.target) for row in audit.recent(session, limit=1000)].count(
            (audit.BY_ITSELF, "disable", f"/v1/webhooks/{webhook['id']}")
        ) == 1
    receiver.status = 200
    delivery = next(one for one in log_of(service, webhook) if one["job_id"] == second)
    again = f"/v1/webhooks/{webhook['id']}/deliveries/{delivery['id']}/redeliver"
    assert problem_of(service.http.post(again), 409)["code"] == "webhook_disabled"
    enabled = service.http.post(f"/v1/webhooks/{webhook['id']}/enable").json()
    assert enabled["disabled_at"] is None
    assert service.http.post(again).status_code == 202
    fourth = ended_job(service)
    deliver(service)
    assert [message["data"]["id"] for _, message in receiver.taken] == [second, fourth]
    assert first not in str(receiver.taken)


def test_a_message_is_sent_again_on_demand_under_the_same_id(service: Service, receiver: Receiver) -> None:
    webhook = add(service, receiver)
    ended_job(service)
    deliver(service)
    (delivery,) = log_of(service, webhook)
    path = f"/v1/webhooks/{webhook['id']}/deliveries"
    answer = service.http.post(f"{path}/{delivery['id']}/redeliver")
    assert (answer.status_code, answer.json()["state"]) == (202, "pending")
    deliver(service)
    assert receiver.taken[0] == receiver.taken[1]
    assert len(receiver.taken) == 2
    assert problem_of(service.http.post(f"{path}/msg_0/redeliver"), 404)["code"] == "delivery_not_found"


def test_senders_at_the_same_time_deliver_each_message_once(service: Service, receiver: Receiver) -> None:
    add(service, receiver)
    told = {ended_job(service) for _ in range(12)}
    barrier = threading.Barrier(6)

    def sender(_number: int) -> int:
        barrier.wait()
        made = 0
        while waiting():
            made += deliver_next(service.parts.post)
            time.sleep(0.01)
        return made

    def waiting() -> int:
        with service.parts.read_sessions() as session:
            pending = select(func.count()).where(WebhookDeliveryRow.state == "pending")
            return session.scalar(pending) or 0

    with ThreadPoolExecutor(6) as pool:
        assert sum(pool.map(sender, range(6))) == 12
    assert len(receiver.taken) == 12
    assert {message["data"]["id"] for _, message in receiver.taken} == told


def test_a_slow_receiver_holds_no_other_up(service: Service, receiver: Receiver) -> None:
    with Receiver(pause=threading.Event()).listening() as slow:
        add(service, slow)
        told = [ended_job(service) for _ in range(3)]
        add(service, receiver)
        told.append(ended_job(service))
        with ThreadPoolExecutor(1) as pool:
            held = pool.submit(deliver_next, service.parts.post)
            wait_until(lambda: slow.requests, what="the slow one has been asked")
            assert deliver(service) == 1, "the slow one's other messages wait for their turn"
            assert [message["data"]["id"] for _, message in receiver.taken] == told[-1:]
            assert slow.pause is not None
            slow.pause.set()
            assert held.result()
        deliver(service)
        assert [message["data"]["id"] for _, message in slow.taken] == told


def test_the_service_sends_by_itself(tmp_path: Any, receiver: Receiver) -> None:
    settings = settings_for(tmp_path / "data", None).model_copy(
        update={"webhook_private": ("127.0.0.0/8",), "reconcile_seconds": 0.1}
    )
    with running(settings) as service:
        add(service, receiver)
        told = {ended_job(service) for _ in range(SENDERS + 1)}
        wait_until(lambda: len(receiver.taken) == len(told), what="every message was taken")
        assert {message["data"]["id"] for _, message in receiver.taken} == told


def test_a_message_of_a_removed_endpoint_is_not_sent(service: Service, receiver: Receiver) -> None:
    webhook = add(service, receiver)
    ended_job(service)
    assert service.http.delete(f"/v1/webhooks/{webhook['id']}").status_code == 204
    assert deliver(service) == 0
    missing = service.http.delete(f"/v1/webhooks/{webhook['id']}")
    assert problem_of(missing, 404)["code"] == "webhook_not_found"


def test_with_another_signing_key_nothing_is_signed_and_the_log_says_why(service: Service, receiver: Receiver) -> None:
    webhook = add(service, receiver)
    with service.sessions.begin() as session:
        other = service.parts.post.box.seal("whsec_AAAA", "another endpoint")
        session.execute(update(WebhookRow).where(WebhookRow.id == webhook["id"]).values(secret=other))
    ended_job(service)
    deliver(service)
    assert receiver.requests == []
    assert "signing key" in log_of(service, webhook)[0]["error"]


# --- for one job -----------------------------------------------------------------------------------------------------


def test_one_job_alone_is_told_of_and_at_once_if_it_has_ended(service: Service, receiver: Receiver) -> None:
    running_job, other = service.submit()["id"], service.submit()["id"]
    add(service, receiver, f"/v1/jobs/{running_job}/webhooks")
    ended_job(service, job=other)
    ended_job(service, job=running_job)
    deliver(service)
    late = add(service, receiver, f"/v1/jobs/{other}/webhooks", events=["job.cancelled"])
    add(service, receiver, f"/v1/jobs/{other}/webhooks", events=["job.succeeded"])
    deliver(service)
    assert [message["data"]["id"] for _, message in receiver.taken] == [running_job, other]
    listed = service.http.get("/v1/webhooks", params={"job": other}).json()["items"]
    assert {webhook["id"] for webhook in listed} > {late["id"]}
    assert {webhook["job_id"] for webhook in listed} == {other}
    refused = service.http.post("/v1/jobs/nothing/webhooks", json={"url": receiver.url})
    assert problem_of(refused, 404)["code"] == "job_not_found"
    wrong = service.http.post(f"/v1/jobs/{other}/webhooks", json={"url": receiver.url, "jobs": "visible"})
    assert problem_of(wrong, 422)["code"] == "unknown_field"


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "code", "pointer"),
    [
        ({"url": "http://127.0.0.2/"}, "bad_webhook_url", "/url"),
        ({"url": "http://10.0.0.1/"}, "bad_webhook_url", "/url"),
        ({"url": "http://[::ffff:127.0.0.2]/"}, "bad_webhook_url", "/url"),
        ({"url": "http://169.254.169.254/latest/meta-data"}, "bad_webhook_url", "/url"),
        ({"url": "ftp://example.com/"}, "bad_webhook_url", "/url"),
        ({"url": "https://user:word@example.com/"}, "bad_webhook_url", "/url"),
        ({"url": ""}, "out_of_range", "/url"),
        ({"url": 5}, "wrong_type", "/url"),
        ({}, "missing_field", "/url"),
        ({"url": "http://127.0.0.1/", "events": []}, "out_of_range", "/events"),
        ({"url": "http://127.0.0.1/", "events": ["job.failed", "job.failed"]}, "out_of_range", "/events"),
        ({"url": "http://127.0.0.1/", "events": ["job.started"]}, "not_available", "/events/0"),
        ({"url": "http://127.0.0.1/", "jobs": "all"}, "not_available", "/jobs"),
        ({"url": "http://127.0.0.1/", "description": "a\0b"}, "invalid_request", "/description"),
        ({"url": "http://127.0.0.1/", "secret": "whsec_mine"}, "unknown_field", "/secret"),
    ],
)
def test_what_cannot_be_registered_is_refused_with_its_field_and_what_is_allowed(
    service: Service, body: dict[str, Any], code: str, pointer: str
) -> None:
    problem = service.refused(body, path="/v1/webhooks")
    assert (problem["code"], problem["pointer"]) == (code, pointer)
    if code == "bad_webhook_url":
        assert "Allowed: http:// or https://" in problem["detail"]


def test_an_address_that_is_no_longer_allowed_is_not_sent_to(service: Service, receiver: Receiver) -> None:
    webhook = add(service, receiver)
    ended_job(service)
    with service.sessions.begin() as session:  # as if the name led elsewhere by now
        session.execute(update(WebhookRow).values(url=f"http://127.0.0.2:{receiver.port}/hook"))
    deliver(service)
    assert receiver.requests == []
    (delivery,) = log_of(service, webhook)
    assert (delivery["state"], delivery["status_code"]) == ("pending", None)
    assert "not public" in delivery["error"]


# --- whose they are --------------------------------------------------------------------------------------------------


@pytest.fixture
def as_key(service: Service) -> Callable[[str], dict[str, str]]:
    """Headers of keys by name; the scope is `admin` for that name and else `submit`."""
    made: dict[str, dict[str, str]] = {}

    def headers(name: str) -> dict[str, str]:
        if name not in made:
            with service.sessions.begin() as session:
                scope = Scope.ADMIN if name == "admin" else Scope.SUBMIT
                made[name] = {"Authorization": f"Bearer {keys.create(session, name, scope)[1]}"}
        return made[name]

    return headers


def test_an_endpoint_is_missing_for_other_keys_and_shown_to_admins_without_its_secret(
    service: Service, receiver: Receiver, as_key: Callable[[str], dict[str, str]]
) -> None:
    webhook = add(service, receiver, headers=as_key("owner"), description="CI")
    path = f"/v1/webhooks/{webhook['id']}"
    calls = [("GET", path), ("GET", f"{path}/deliveries"), ("POST", f"{path}/enable"), ("DELETE", path)]
    for method, where in [*calls, ("POST", f"{path}/deliveries/x/redeliver")]:
        answer = service.http.request(method, where, headers=as_key("other"))
        assert problem_of(answer, 404)["code"] == "webhook_not_found"
    assert service.http.get("/v1/webhooks", headers=as_key("other")).json() == {"items": [], "next_cursor": None}
    for who in ("owner", "admin"):
        one = service.http.get(path, headers=as_key(who))
        listed = service.http.get("/v1/webhooks", headers=as_key(who))
        assert listed.json()["items"] == [one.json()]
        assert one.json() == {name: value for name, value in webhook.items() if name != "secret"}
        assert "whsec_" not in one.text + listed.text
    with service.sessions() as session:
        assert webhook["secret"] not in str(session.execute(select(WebhookRow.__table__)).all())


def test_a_key_that_is_revoked_before_its_message_is_sent_gets_none(
    service: Service, receiver: Receiver, as_key: Callable[[str], dict[str, str]]
) -> None:
    webhook = add(service, receiver, jobs="visible", headers=as_key("leaving"))
    job = service.http.post("/v1/jobs", headers=as_key("owner"), json={
        "model": {"repo": "demo/stories-24l"}, "target": {"layers": 2}
    }).json()["id"]  # fmt: skip
    assert service.http.post(f"/v1/jobs/{job}/cancel", headers=as_key("owner")).status_code == 202
    with service.sessions.begin() as session:
        assert keys.revoke(session, webhook["owner"])
    assert deliver(service) == 1
    assert receiver.requests == []
    listed = service.http.get(f"/v1/webhooks/{webhook['id']}/deliveries", headers=as_key("admin")).json()["items"]
    assert [(one["state"], one["next_attempt_at"]) for one in listed] == [("failed", None)]
    assert "no longer valid" in listed[0]["error"]


def test_what_may_not_be_told_any_more_is_not_sent_again_but_refused_with_the_reason(
    service: Service, receiver: Receiver, as_key: Callable[[str], dict[str, str]]
) -> None:
    keyless = add(service, receiver)
    ended_job(service)
    assert deliver(service) == 1
    owned = add(service, receiver, headers=as_key("leaving"))
    assert owned["muted"] is None
    job = service.http.post("/v1/jobs", headers=as_key("leaving"), json=JOB).json()["id"]
    assert service.http.post(f"/v1/jobs/{job}/cancel", headers=as_key("leaving")).status_code == 202
    assert deliver(service) == 1
    with service.sessions.begin() as session:
        assert keys.revoke(session, owned["owner"])
    admin = as_key("admin")
    sent = len(receiver.requests)
    for webhook, why, words in [
        (keyless, "keyless", "before there were keys"), (owned, "key_ended", "revoked or has expired"),
    ]:  # fmt: skip
        path = f"/v1/webhooks/{webhook['id']}"
        (before,) = service.http.get(f"{path}/deliveries", headers=admin).json()["items"]
        refused = service.http.post(f"{path}/deliveries/{before['id']}/redeliver", headers=admin)
        problem = problem_of(refused, 409)
        assert problem["code"] == "webhook_muted"
        assert words in problem["detail"]
        assert "register it again" in problem["detail"]
        assert service.http.get(f"{path}/deliveries", headers=admin).json()["items"] == [before], "nothing is counted"
        assert service.http.get(path, headers=admin).json()["muted"] == why
        page = service.http.get(f"/webhooks/{webhook['id']}", headers=admin)
        assert ">muted<" in page.text
        assert "data-redeliver" not in page.text
    listed = service.http.get("/v1/webhooks", headers=admin).json()["items"]
    assert [one["muted"] for one in listed] == ["key_ended", "keyless"]
    assert service.http.get("/webhooks", headers=admin).text.count(">muted<") == 2
    assert (deliver(service), len(receiver.requests)) == (0, sent)


def test_a_message_that_waits_for_a_webhook_of_before_there_were_keys_is_given_up_with_that_reason(
    service: Service, receiver: Receiver, as_key: Callable[[str], dict[str, str]]
) -> None:
    webhook = add(service, receiver)
    ended_job(service)
    admin = as_key("admin")
    assert deliver(service) == 1
    assert receiver.requests == []
    (delivery,) = service.http.get(f"/v1/webhooks/{webhook['id']}/deliveries", headers=admin).json()["items"]
    assert delivery["state"] == "failed"
    assert "before there were keys" in delivery["error"]


def test_a_key_has_a_bounded_number_of_endpoints(
    service: Service, receiver: Receiver, as_key: Callable[[str], dict[str, str]]
) -> None:
    body, owner = {"url": receiver.url}, as_key("owner")
    with ThreadPoolExecutor(4) as pool:
        answers = list(
            pool.map(
                lambda _: service.http.post("/v1/webhooks", json=body, headers=owner).status_code,
                range(MOST_PER_KEY + 4),
            )
        )
    assert (answers.count(201), answers.count(409)) == (MOST_PER_KEY, 4)
    refused = service.http.post("/v1/webhooks", json=body, headers=owner)
    assert problem_of(refused, 409)["code"] == "too_many_webhooks"
    add(service, receiver, headers=as_key("other"))
    request = {"model": {"repo": "demo/stories-24l"}, "target": {"layers": 2}}
    job = service.http.post("/v1/jobs", json=request, headers=owner).json()["id"]
    answers = [
        service.http.post(f"/v1/jobs/{job}/webhooks", json=body, headers=owner).status_code
        for _ in range(MOST_PER_JOB + 1)
    ]
    assert answers == [201] * MOST_PER_JOB + [409]


def test_what_is_done_with_webhooks_is_in_the_audit_log_without_a_secret(service: Service, receiver: Receiver) -> None:
    webhook = add(service, receiver)
    service.refused({"url": "http://10.0.0.1/"}, path="/v1/webhooks")
    service.http.delete(f"/v1/webhooks/{webhook['id']}")
    with service.sessions() as session:
        rows = audit.recent(session)
        assert [(row.action, row.target, row.status) for row in rows] == [
            ("POST", "/v1/webhooks", 201),
            ("POST", "/v1/webhooks", 422),
            ("DELETE", f"/v1/webhooks/{webhook['id']}", 204),
        ]
        assert "whsec_" not in str([vars(row) for row in rows])


# --- lists, clients and commands -------------------------------------------------------------------------------------


def test_lists_are_paged_newest_first(service: Service, receiver: Receiver) -> None:
    made = [add(service, receiver, description=str(number)) for number in range(5)]
    webhook = made[-1]
    told = [ended_job(service) for _ in range(5)]

    def pages(path: str) -> list[dict[str, Any]]:
        found, cursor = [], None
        while True:
            query = {"limit": 2} | ({"cursor": cursor} if cursor else {})
            page = service.http.get(path, params=query).json()
            found += page["items"]
            cursor = page["next_cursor"]
            if cursor is None:
                return found

    assert [one["id"] for one in pages("/v1/webhooks")] == [one["id"] for one in reversed(made)]
    listed = pages(f"/v1/webhooks/{webhook['id']}/deliveries")
    assert [one["job_id"] for one in listed] == told[::-1]
    bad = service.http.get("/v1/webhooks", params={"cursor": "x"})
    assert problem_of(bad, 422)["parameter"] == "cursor"


def test_the_client_does_all_of_it(service: Service, receiver: Receiver) -> None:
    with Streamline(service.url) as client:
        webhook = client.add_webhook(receiver.url, events=["job.cancelled"], description="CI")
        receiver.secrets.append(webhook["secret"])
        ended_job(service)
        deliver(service)
        assert [one["id"] for one in client.webhooks()] == [webhook["id"]]
        (delivery,) = client.deliveries(webhook["id"], state="delivered")["items"]
        assert client.redeliver(webhook["id"], delivery["id"])["state"] == "pending"
        assert client.enable_webhook(webhook["id"])["disabled_at"] is None
        client.remove_webhook(webhook["id"])
        assert client.webhooks() == []
        with pytest.raises(ProblemError, match="no webhook"):
            client.deliveries(webhook["id"])


def test_the_command_does_all_of_it(
    service: Service, receiver: Receiver, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("STREAMLINE_URL", service.url)

    def said(*arguments: str, code: int = 0) -> str:
        assert run(["webhooks", *arguments]) == code
        return capsys.readouterr().out

    secret = said("add", receiver.url, "--event", "job.cancelled", "--event", "job.failed").strip()
    receiver.secrets.append(secret)
    assert secret.startswith("whsec_")
    webhook_id = said("list").split()[0]
    ended_job(service)
    deliver(service)
    line = said("deliveries", webhook_id)
    assert "delivered" in line
    assert "is sent again" in said("redeliver", webhook_id, line.split()[0])
    assert '"state": "pending"' in said("deliveries", webhook_id, "--json")
    assert said("enable", webhook_id).strip() == "Enabled."
    assert said("remove", webhook_id).strip() == "Removed."
    assert said("list", "--json").strip() == "[]"
    said("add", "http://10.0.0.1/", code=64)
    said("add", receiver.url, "--visible", "--job", "x", code=64)


def test_the_command_names_commands_where_the_service_names_routes(
    service: Service, receiver: Receiver, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("STREAMLINE_URL", service.url)
    webhook_id = add(service, receiver)["id"]
    capsys.readouterr()
    for command in (["remove"], ["enable"], ["rotate"], ["deliveries"]):
        assert run(["webhooks", *command, "absent"]) == 64
        said = "streamline: There is no webhook absent; `streamline webhooks list` shows those that are.\n"
        assert capsys.readouterr().err == said
    assert run(["webhooks", "redeliver", webhook_id, "absent"]) == 64
    assert f"`streamline webhooks deliveries {webhook_id}` shows those that are." in capsys.readouterr().err


def test_waiting_messages_are_counted_for_prometheus(service: Service, receiver: Receiver) -> None:
    add(service, receiver)
    ended_job(service)
    assert "streamline_webhooks_waiting 1.0" in service.http.get("/metrics").text
    deliver(service)
    text = httpx.get(f"{service.url}/metrics").text
    assert "streamline_webhooks_waiting 0.0" in text
    assert 'streamline_webhook_attempts_total{outcome="delivered"}' in text
