"""Choosing jobs and comparing them, as a person does it."""

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser
from sqlalchemy import update

from app.db.models import JobRow
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


@pytest.fixture
def unlike(service: Service, jobs: list[str]) -> Iterator[list[str]]:
    """The same jobs, asked for in so many different ways that their table is wider than a desk's screen."""
    kept = {}
    with service.sessions.begin() as session:
        for number, id_ in enumerate(jobs, 1):
            row = session.get_one(JobRow, id_)
            kept[id_] = row.spec
            changed: dict[str, dict[str, Any]] = {
                "scoring": {"sequences": 64 * number, "metric": ["cosine", "angular", "dot"][number - 1]},
                "selection": {"windows": 3 - number % 2, "rounds": number},
                "replacement": {"learning_rate": number / 1000, "loss": ["mse", "mse+kd", "lm"][number - 1]},
                "calibration": {"dataset": f"ds-d267221565bccba402de7cc{number}"},
            }
            parts = {part: {**(row.spec.get(part) or {}), **fields} for part, fields in changed.items()}
            spec = row.spec | parts | {"seed": number, "target": {"layers": 5 + number}}
            session.execute(update(JobRow).where(JobRow.id == id_).values(spec=spec))
    yield jobs
    with service.sessions.begin() as session:
        for id_, spec in kept.items():
            session.execute(update(JobRow).where(JobRow.id == id_).values(spec=spec))


def test_a_table_that_goes_on_beyond_its_edge_shows_it_and_a_phone_has_all_of_it(
    browser: Browser, service: Service, unlike: list[str]
) -> None:
    path = "/compare?" + "&".join(f"job={id_}" for id_ in unlike)
    region = "[aria-label='Jobs compared']"
    with visit(browser, service, path) as found:
        card = found.page.locator(region)
        assert card.evaluate("card => card.scrollWidth > card.clientWidth"), "else there is nothing to show"
        shadow = card.evaluate("card => getComputedStyle(card).backgroundAttachment")
        assert shadow == "local, local, scroll, scroll, scroll", "shadows stay at the edge, covers move with the table"
        first = found.page.locator(f"{region} tbody tr td:first-child")
        assert first.all_inner_texts() == [f"{number} {id_[:8]}" for number, id_ in enumerate(unlike, 1)]
    with visit(browser, service, path, width=390) as found:
        assert found.page.locator(region).evaluate("card => card.scrollWidth <= card.clientWidth")
        assert "learning rate" in found.page.locator(f"{region} td[data-label='learning rate']").first.evaluate(
            "cell => getComputedStyle(cell, '::before').content"
        )


def test_an_unknown_job_is_named(service: Service) -> None:
    assert problem_of(service.http.get("/compare?job=nope"), 404)["code"] == "job_not_found"
    assert service.http.get("/compare").status_code == 200
