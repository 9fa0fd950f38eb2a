"""The list of jobs with very many of them: there at once, and paged through."""

import pytest
from playwright.sync_api import Browser, expect
from sqlalchemy import insert, select

from app.db.models import JobRow
from tests.browser.conftest import assert_painted_within, visit
from tests.integration.api.conftest import running, settings_for

pytestmark = pytest.mark.chromium

JOBS = 10_000


def test_ten_thousand_jobs_are_seen_within_a_second(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> None:
    with running(settings_for(tmp_path_factory.mktemp("many") / "data", None)) as service:
        one = service.submit()
        with service.sessions.begin() as session:
            spec = session.scalar(select(JobRow.spec).where(JobRow.id == one["id"]))
            rows = [
                {"id": f"{n:032x}", "state": "succeeded", "spec": spec, "model": f"team/model-{n % 9}"}
                for n in range(JOBS)
            ]
            session.execute(insert(JobRow), rows)
        with visit(browser, service, "/") as found:
            assert_painted_within(1000, found.page)
            expect(found.page.locator("[data-job]")).to_have_count(50)
            expect(found.page.locator(".counts")).to_contain_text("10,001")
            seen = found.page.locator("[data-job]").first.get_attribute("data-job")
            found.page.get_by_role("link", name="Older jobs").click()
            expect(found.page.get_by_role("link", name="Newest")).to_be_visible()
            assert found.page.locator("[data-job]").first.get_attribute("data-job") != seen
            assert found.said == []
