"""A webhook's page: the log that the API has, and whose it is."""

import re
from collections.abc import Iterator

import pytest

from app.auth import keys
from app.auth.scopes import Scope
from app.db.models import WebhookRow
from app.webhooks import repository
from tests.integration.api import webhooked
from tests.integration.api.conftest import JOB, Service
from tests.integration.api.webhooked import add, deliver, emptied, ended_job
from tests.webhook_receiver import Receiver

SETTINGS = webhooked.SETTINGS
PAGE = {"Accept": "text/html"}


@pytest.fixture
def service(running_service: Service) -> Service:
    return emptied(running_service)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver().listening() as found:
        yield found


def shown(service: Service, webhook_id: str, query: str = "", **headers: str) -> str:
    answer = service.http.get(f"/webhooks/{webhook_id}{query}", headers=PAGE | headers)
    assert answer.status_code == 200, answer.text
    return answer.text


def test_the_page_shows_what_came_of_each_message_and_filters_by_it(service: Service, receiver: Receiver) -> None:
    webhook = add(service, receiver, description="<b>CI</b>")["id"]
    assert "Nothing has been sent yet" in shown(service, webhook)
    first = ended_job(service)
    deliver(service)
    receiver.status = 500
    second = ended_job(service)
    deliver(service)
    page = shown(service, webhook)
    assert re.findall(r'href="/jobs/(\w+)"', page) == [second, first], "the newest first"
    assert "&lt;b&gt;CI&lt;/b&gt;" in page
    assert 'badge succeeded">delivered' in page
    assert "500" in page
    assert "whsec_" not in page
    pending = shown(service, webhook, "?state=pending")
    assert second in pending
    assert first not in pending
    assert "No delivery is like that" in shown(service, webhook, "?state=failed")
    listed = service.http.get("/webhooks", headers=PAGE).text
    assert f'href="/webhooks/{webhook}"' in listed


def test_pages_of_deliveries_follow_each_other(
    service: Service, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.web.deliveries._ON_A_PAGE", 2)
    webhook = add(service, receiver)["id"]
    made = [ended_job(service) for _ in range(5)]
    seen: list[str] = []
    query: str | None = ""
    while query is not None:
        page = shown(service, webhook, query)
        seen += re.findall(r'href="/jobs/(\w+)"', page)
        found = re.search(r'<a href="/webhooks/\w+(\?[^"]+)" rel="next"', page)
        query = found[1].replace("&amp;", "&") if found else None
    assert seen == made[::-1]


def test_an_open_page_is_told_cheaply_that_nothing_is_new(service: Service, receiver: Receiver) -> None:
    webhook = add(service, receiver)["id"]
    ended_job(service)
    page = service.http.get(f"/webhooks/{webhook}", headers=PAGE)
    again = PAGE | {"If-None-Match": page.headers["etag"]}
    address = f"/webhooks/{webhook}?part=list"
    assert service.http.get(address, headers=again).status_code == 304
    deliver(service)
    changed = service.http.get(address, headers=again)
    assert "delivered" in changed.text
    assert "<html" not in changed.text


def test_only_who_may_send_again_has_the_button_and_only_its_own_key_the_page(
    service: Service, receiver: Receiver
) -> None:
    scopes = {"submitter": Scope.SUBMIT, "other": Scope.SUBMIT, "reader": Scope.READ, "admin": Scope.ADMIN}
    with service.sessions.begin() as session:
        made = {name: keys.create(session, name, scope) for name, scope in scopes.items()}
    bearer = {name: {"Authorization": f"Bearer {key}"} for name, (_, key) in made.items()}
    webhook = add(service, receiver, headers=bearer["submitter"])["id"]
    job = service.http.post("/v1/jobs", json=JOB, headers=bearer["submitter"]).json()["id"]
    assert service.http.post(f"/v1/jobs/{job}/cancel", headers=bearer["submitter"]).status_code == 202
    assert "data-redeliver" in shown(service, webhook, **bearer["submitter"])
    assert "data-redeliver" in shown(service, webhook, **bearer["admin"])
    for name in ("other", "reader"):
        assert service.http.get(f"/webhooks/{webhook}", headers=PAGE | bearer[name]).status_code == 404
    with service.sessions.begin() as session:
        session.get_one(WebhookRow, webhook).owner = made["reader"][0].id
    page = shown(service, webhook, **bearer["reader"])
    assert "job.cancelled" in page
    assert "data-redeliver" not in page
    with service.sessions.begin() as session:
        session.get_one(WebhookRow, webhook).owner = made["submitter"][0].id
        repository.disable(session, webhook, repository.GONE)
    page = shown(service, webhook, **bearer["submitter"])
    assert "data-redeliver" not in page, "nothing is sent to it"
    assert f'data-enable="{webhook}"' in page
