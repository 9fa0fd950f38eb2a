"""Every page, on desk and phone, light and dark: readable for all, nothing cut off, nothing from elsewhere."""

from collections.abc import Iterator

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser

from app.auth import keys
from app.auth.scopes import Scope
from tests.browser.conftest import at_work, finished_job, scores, visit
from tests.integration.api.conftest import MODEL, Service, jsonl

pytestmark = pytest.mark.chromium

SEVERE = {"serious", "critical"}


@pytest.fixture(scope="module")
def pages(service: Service, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    directory = tmp_path_factory.mktemp("reports")
    done, other = finished_job(service, directory), finished_job(service, directory, verdict="fail")
    job_id, tell = at_work(service, labels={"team": "research-group-with-a-long-name", "run": "2026-11-26"})
    tell(("stage_started", {}), ("scores", scores()), ("stage_finished", {"seconds": 75.0}), stage="score")
    tell(("stage_started", {}), ("selected", {"windows": [[11, 17]]}), stage="select")
    points = [("metric", {"phase": "mse", "step": step, "steps": 99, "loss": 3 / step}) for step in range(1, 60)]
    held = [
        ("metric", {"phase": "mse", "step": step, "steps": 99, "held_out_loss": 4 / (step + 1)}) for step in (0, 20, 40)
    ]
    tell(("stage_started", {}), *points, *held, ("progress", {"done": 59, "total": 99, "unit": "steps of mse"}))
    service.upload(jsonl("one", "two"), "a data set of some stories.jsonl")
    return {
        "jobs": "/", "running": f"/jobs/{job_id}", "finished": f"/jobs/{done}", "new": "/new",
        "compare": f"/compare?job={done}&job={other}", "models": "/models", "model": f"/models/{MODEL}",
        "datasets": "/datasets", "webhooks": "/webhooks", "workers": "/workers", "keys": "/keys",
        "refusal": "/jobs/none",
    }  # fmt: skip


@pytest.fixture(scope="module")
def keyed(service: Service) -> Iterator[None]:
    with service.sessions.begin() as session:
        row, _ = keys.create(session, "person", Scope.READ)
    yield
    with service.sessions.begin() as session:
        session.delete(session.merge(row))


NAMES = [
    "jobs", "running", "finished", "new", "compare", "models", "model", "datasets", "webhooks", "workers", "keys",
    "refusal",
]  # fmt: skip


def check(browser: Browser, service: Service, path: str, width: int, dark: bool, key_id: str | None = None) -> None:
    """Hold a page against what every page promises; with `key_id`, as whoever has logged in with that key sees it."""
    with visit(browser, service, path, width=width, dark=dark, key_id=key_id) as found:
        for details in found.page.locator("details").all():
            details.evaluate("details => { details.open = true; }")
        violations = Axe().run(found.page).response["violations"]
        severe = [
            (one["id"], [node["html"][:200] for node in one["nodes"][:3]])
            for one in violations
            if one["impact"] in SEVERE
        ]
        assert severe == []
        assert found.page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "it scrolls sideways"
        paper = found.page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert paper == ("rgb(13, 16, 21)" if dark else "rgb(245, 246, 249)")
        assert found.asked_elsewhere == []
        assert [line for line in found.said if "404" not in line] == []


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390], ids=["desk", "phone"])
@pytest.mark.parametrize("name", NAMES)
def test_everybody_can_read_every_page(
    browser: Browser, service: Service, pages: dict[str, str], name: str, width: int, dark: bool
) -> None:
    check(browser, service, pages[name], width, dark)


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390], ids=["desk", "phone"])
def test_everybody_can_log_in(browser: Browser, service: Service, keyed: None, width: int, dark: bool) -> None:
    check(browser, service, "/login", width, dark)
