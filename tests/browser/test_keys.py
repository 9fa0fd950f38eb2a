"""An administrator at the page of API keys: makes one, copies it once, revokes it after thinking twice."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, expect
from sqlalchemy import delete, update

from app.auth import keys
from app.auth.keys import Limits
from app.auth.scopes import Scope
from app.db.clock import db_now
from app.db.models import ApiKeyRow, WebhookRow
from app.webhooks import repository
from tests.browser.conftest import hold_timers, visit
from tests.browser.test_every_page import check
from tests.integration.api.conftest import Service

pytestmark = pytest.mark.chromium


@pytest.fixture
def admin(service: Service) -> Iterator[str]:
    """Id of an administrator's key, beside keys of every kind."""
    with service.sessions.begin() as session:
        row, _ = keys.create(session, "Ada", Scope.ADMIN)
        limits = Limits(20, 600, 50 * 10**9)
        keys.create(session, "the nightly pipeline of the research group", Scope.SUBMIT, valid_days=90, limits=limits)
        keys.revoke(session, keys.create(session, "left last year", Scope.READ)[0].id)
        keys.mark_used(session, [row.id])
    yield row.id
    with service.sessions.begin() as session:
        session.execute(delete(ApiKeyRow))


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390], ids=["desk", "phone"])
def test_everybody_can_read_the_keys(browser: Browser, service: Service, admin: str, width: int, dark: bool) -> None:
    check(browser, service, "/keys", width, dark, admin)


def test_a_key_is_made_shown_once_and_revoked_after_a_question(browser: Browser, service: Service, admin: str) -> None:
    with visit(browser, service, "/", key_id=admin) as found:
        page = found.page
        page.get_by_role("link", name="Keys").click()
        page.get_by_role("button", name="Make the key").click()
        expect(page.locator("#f-name-error")).to_contain_text("required")
        expect(page.get_by_label("Name")).to_be_focused()
        found.said.clear()  # a browser notes the refusal
        page.get_by_label("Name").fill("CI <b>bot</b>")
        page.get_by_label("Scope").select_option("read")
        page.get_by_label("Valid for days").fill("30")
        page.get_by_text("Limits", exact=True).first.click()
        page.get_by_label("Requests per minute").fill("60")
        page.get_by_role("button", name="Make the key").click()
        expect(page.get_by_role("heading", name="shown this once")).to_be_visible()
        key = page.locator("#secret").inner_text()
        bearer = {"Authorization": f"Bearer {key}"}
        assert service.http.get("/v1/jobs", headers=bearer).status_code == 200
        later = hold_timers(page)
        page.get_by_role("button", name="Copy").click()
        expect(page.get_by_role("button", name="Copied")).to_be_visible()
        later()
        row = page.locator(f"[data-key='{key[3:11]}']")
        expect(row).to_contain_text("CI <b>bot</b>")
        expect(row).to_contain_text("60 requests a minute")
        expect(page.locator(f"[data-key='{admin}']")).to_contain_text("yours")

        row.get_by_role("button", name="Revoke").click()
        question = page.get_by_role("dialog")
        expect(question).to_contain_text("Revoke CI <b>bot</b>")
        expect(question.get_by_role("button", name="Keep it")).to_be_focused()
        page.keyboard.press("Escape")
        expect(question).to_be_hidden()
        assert service.http.get("/v1/jobs", headers=bearer).status_code == 200
        row.get_by_role("button", name="Revoke").click()
        question.get_by_role("button", name="Revoke").click()
        expect(page.get_by_role("status")).to_contain_text("is revoked")
        expect(row).to_have_count(0)
        assert service.http.get("/v1/jobs", headers=bearer).status_code == 401
        page.get_by_role("link", name="revoked").click()
        expect(row).to_be_visible()
        assert key not in page.content(), "nothing shows it again"
        assert found.said == []


def test_who_may_not_administer_is_not_led_to_the_keys(browser: Browser, service: Service, admin: str) -> None:
    with service.sessions.begin() as session:
        reader, _ = keys.create(session, "reader", Scope.READ)
    with visit(browser, service, "/", key_id=reader.id) as found:
        expect(found.page.get_by_role("link", name="Webhooks")).to_be_visible()
        expect(found.page.get_by_role("link", name="Keys")).to_have_count(0)
        found.page.goto(f"{service.url}/keys")
        expect(found.page.get_by_role("heading")).to_have_text("The API key does not allow this")


@pytest.fixture
def webhooks(service: Service) -> Iterator[None]:
    values = {"owner": "", "secret": "sealed", "jobs": repository.VISIBLE, "service_url": service.url}
    with service.sessions.begin() as session:
        for name in ("healthy", "failing", "disabled"):
            row = WebhookRow(
                id=name, url=f"https://{name}.example.com/hooks/streamline", events=["job.failed"], **values
            )
            repository.insert(session, row)
        session.execute(update(WebhookRow).where(WebhookRow.id == "failing").values(failing_since=db_now(-3600)))
        repository.disable(session, "disabled", repository.FAILING)
    yield
    with service.sessions.begin() as session:
        session.execute(delete(WebhookRow))


@pytest.mark.parametrize("width", [1280, 390], ids=["desk", "phone"])
def test_a_webhook_that_was_disabled_is_shown_with_its_reason_and_enabled(
    browser: Browser, service: Service, webhooks: None, width: int
) -> None:
    check(browser, service, "/webhooks", width, width == 390)
    with visit(browser, service, "/webhooks", width=width) as found:
        page = found.page
        expect(page.get_by_text("it took no message for days")).to_be_visible()
        page.get_by_role("button", name="Enable").click()
        expect(page.get_by_role("button", name="Enable")).to_have_count(0)
        assert service.http.get("/v1/webhooks/disabled").json()["disabled_at"] is None
        assert found.said == []
