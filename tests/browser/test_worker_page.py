"""The page of workers, open while workers come and jobs wait."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, expect
from sqlalchemy import delete, update

from app.core.device_memory import card_bytes
from app.db.clock import db_now
from app.db.models import JobRow, WorkerRow
from app.jobs import workers
from tests.browser.conftest import visit
from tests.browser.test_every_page import check
from tests.integration.api.conftest import Service

pytestmark = pytest.mark.chromium


@pytest.fixture
def fleet(service: Service) -> Iterator[str]:
    """Workers of three kinds, one of them gone, and jobs for all sizes; the id of the one that none can take."""
    small, large = service.submit()["id"], service.submit()["id"]
    with service.sessions.begin() as session:
        session.execute(delete(WorkerRow))
        for number, memory in enumerate((24, 24, 48, 141), start=1):
            workers.seen(session, f"gpu-{number}:1", card_bytes(memory))
        session.execute(update(WorkerRow).where(WorkerRow.name == "gpu-4:1").values(seen_at=db_now(-7200)))
        session.execute(update(JobRow).where(JobRow.id == large).values(required_memory_bytes=card_bytes(141)))
    yield large
    with service.sessions.begin() as session:
        session.execute(delete(WorkerRow))
    for job in (small, large):
        service.http.post(f"/v1/jobs/{job}/cancel")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390], ids=["desk", "phone"])
def test_everybody_can_read_who_is_there(
    browser: Browser, service: Service, fleet: str, width: int, dark: bool
) -> None:
    check(browser, service, "/workers", width, dark)


def test_a_worker_that_comes_is_seen_on_the_open_page(browser: Browser, service: Service, fleet: str) -> None:
    with visit(browser, service, "/") as found:
        page = found.page
        page.get_by_role("link", name="Workers").click()
        row = page.locator("[data-class='141g']")
        expect(row).to_contain_text("larger worker")
        with service.sessions.begin() as session:
            workers.seen(session, "gpu-5:1", card_bytes(192))
        expect(page.locator("[data-class='192g']")).to_be_visible(timeout=10_000)
        expect(row).to_contain_text("when a worker is free")
        assert found.said == []
