"""A person looks up why a message did not arrive, and sends it again."""

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, expect
from sqlalchemy import delete, update

from app.db.clock import db_now
from app.db.models import WebhookDeliveryRow, WebhookRow
from app.webhooks import deliveries, repository
from tests.browser.conftest import visit
from tests.browser.test_every_page import check
from tests.integration.api.conftest import Service

pytestmark = pytest.mark.chromium

SENT: tuple[dict[str, Any], ...] = (
    {"state": deliveries.DELIVERED, "status_code": 204, "attempts": 1, "next_attempt_at": None},
    {"state": deliveries.FAILED, "status_code": 500, "attempts": 12, "next_attempt_at": None}
    | {"error": "https://ci.research-group-with-a-long-name.example.com answered 500"},
    {"state": deliveries.PENDING, "next_attempt_at": db_now(86_400)},
)
"""What came of its messages, the oldest first."""


@pytest.fixture
def webhook(service: Service) -> Iterator[str]:
    """Id of a webhook that has taken one message, has not taken another, and is to be sent a third."""
    values = {"owner": "", "secret": "sealed", "jobs": repository.OWN, "service_url": service.url}
    address = "https://ci.research-group-with-a-long-name.example.com/hooks/streamline"
    jobs = [service.submit()["id"] for _ in SENT]
    with service.sessions.begin() as session:
        repository.insert(session, WebhookRow(id="logged", url=address, events=["job.failed"], **values))
        for seq, (job_id, outcome) in enumerate(zip(jobs, SENT, strict=True), start=1):
            deliveries.add(session, "logged", job_id, seq, event="job.failed", payload="{}")
            session.execute(update(WebhookDeliveryRow).where(WebhookDeliveryRow.seq == seq).values(**outcome))
    yield "logged"
    with service.sessions.begin() as session:
        session.execute(delete(WebhookRow))


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390], ids=["desk", "phone"])
def test_everybody_can_read_what_was_sent(
    browser: Browser, service: Service, webhook: str, width: int, dark: bool
) -> None:
    check(browser, service, f"/webhooks/{webhook}", width, dark)


@pytest.mark.parametrize("width", [1280, 390], ids=["desk", "phone"])
def test_a_message_that_was_given_up_is_found_and_sent_again(
    browser: Browser, service: Service, webhook: str, width: int
) -> None:
    with visit(browser, service, "/webhooks", width=width) as found:
        page = found.page
        page.get_by_role("link", name="ci.research-group").click()
        page.get_by_role("link", name="failed", exact=True).click()
        row = page.locator("[data-delivery]")
        expect(row).to_have_count(1)
        expect(row).to_contain_text("answered 500")
        delivery = row.get_attribute("data-delivery")
        page.get_by_role("link", name="all", exact=True).click()
        expect(row).to_have_count(3)
        row = page.locator(f"[data-delivery='{delivery}']")
        before = row.get_attribute("data-version") or ""
        with page.expect_response(lambda answer: answer.url.endswith("/redeliver")) as answered:
            row.get_by_role("button").click()
        assert answered.value.status == 202
        assert answered.value.json()["id"] == delivery
        expect(page.get_by_role("status")).to_have_text(f"{delivery} is sent again.")
        expect(row).not_to_have_attribute("data-version", before)
        assert found.said == []


def test_an_open_page_shows_what_happens_and_the_keyboard_stays_where_it_is(
    browser: Browser, service: Service, webhook: str
) -> None:
    with visit(browser, service, f"/webhooks/{webhook}") as found:
        row = found.page.locator("[data-delivery]").first
        row.get_by_role("button").focus()
        with service.sessions.begin() as session:
            session.execute(update(WebhookDeliveryRow).values(status_code=418, error="it answered 418"))
        expect(row).to_contain_text("answered 418", timeout=10_000)
        expect(row.get_by_role("button")).to_be_focused()
        assert found.said == []
