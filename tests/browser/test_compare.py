"""Choosing jobs and comparing them, as a person does it."""

import pytest
from playwright.sync_api import Browser

from tests.browser.conftest import finished_job, visit
from tests.integration.api.conftest import Service, problem_of
from tests.unit.app.report.reports import full

pytestmark = pytest.mark.chromium


@pytest.fixture(scope="module")
def jobs(service: Service, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    directory = tmp_path_factory.mktemp("reports")
    metrics = full()["metrics"]
    return [
        finished_job(service, directory, metrics=metrics | {"perplexity_ratio": ratio, "speedup": speedup})
        for ratio, speedup in ((1.05, 1.3), (1.4, 1.2), (1.6, 2.1))
    ]


def test_jobs_are_chosen_on_the_jobs_page_and_compared(browser: Browser, service: Service, jobs: list[str]) -> None:
    with visit(browser, service, "/") as found:
        for job_id in jobs:
            found.page.get_by_label(f"compare job {job_id}").check()
        found.page.get_by_role("button", name="Compare the chosen jobs").click()
        found.page.wait_for_selector("#pareto-speed svg")
        assert all(f"job={job_id}" in found.page.url for job_id in jobs)
        rows = found.page.locator("main table").first.locator("tbody tr")
        assert rows.count() == 3
        assert "×1.05" in rows.filter(has_text=jobs[0][:8]).inner_text()
        assert found.page.locator("#pareto-speed circle").count() == 3
        assert found.page.locator("#pareto-speed circle.pruned").count() == 2, "two of them are on the front"
        assert found.page.locator("#pareto-speed .front").bounding_box() is not None
        assert (found.said, found.asked_elsewhere) == ([], [])


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_a_phone_shows_the_comparison_without_scrolling_sideways(
    browser: Browser, service: Service, jobs: list[str], dark: bool
) -> None:
    with visit(browser, service, f"/compare?job={jobs[0]}&job={jobs[2]}", width=390, dark=dark) as found:
        assert found.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert found.page.locator("#pareto-size svg").bounding_box()["width"] > 300  # type: ignore[index]
        found.page.get_by_label(jobs[1][:8]).check()
        found.page.get_by_role("button", name="Compare").click()
        found.page.wait_for_url(f"**job={jobs[1]}*")
        assert found.page.locator("#pareto-speed circle").count() == 3
        assert found.said == []


def test_an_unknown_job_is_named(service: Service) -> None:
    assert problem_of(service.http.get("/compare?job=nope"), 404)["code"] == "job_not_found"
    assert service.http.get("/compare").status_code == 200
