"""The report as people see it: every plot drawn, in both schemes, on desk and phone, and nothing from outside."""

from pathlib import Path

import pytest
from playwright.sync_api import Browser

from tests.browser.conftest import finished_job, visit
from tests.integration.api.conftest import Service
from tests.unit.app.report.test_page import PLOTS

pytestmark = pytest.mark.chromium

# Of every plot: its width and height on the page, how many shapes have an area or a length, and its words' size there.
MEASURE = """
() => Object.fromEntries([...document.querySelectorAll("figure")].map(figure => {
  const svg = figure.querySelector("svg"), box = svg.getBoundingClientRect();
  const shapes = [...svg.querySelectorAll("rect, circle, line, polyline, polygon, path")];
  const drawn = shapes.filter(shape => { const b = shape.getBoundingClientRect(); return b.width + b.height > 0; });
  const painted = shapes.filter(shape => { const s = getComputedStyle(shape);
    return s.fill !== "rgb(0, 0, 0)" || s.stroke !== "none"; });
  const words = [...svg.querySelectorAll("text")].map(text => text.getBoundingClientRect());
  return [figure.id, {width: box.width, height: box.height, shapes: shapes.length, drawn: drawn.length,
    painted: painted.length, smallest: Math.min(...words.map(word => word.height)),
    outside: words.filter(word => word.left < box.left - 3 || word.right > box.right + 3).length}];
}))
"""


@pytest.fixture(scope="module")
def job_id(service: Service, tmp_path_factory: pytest.TempPathFactory) -> str:
    return finished_job(service, tmp_path_factory.mktemp("reports"))


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390], ids=["desk", "phone"])
def test_every_plot_is_drawn_and_readable_and_nothing_is_asked_from_outside(
    browser: Browser, service: Service, job_id: str, width: int, dark: bool
) -> None:
    with visit(browser, service, f"/v1/jobs/{job_id}/report", width=width, dark=dark) as found:
        plots = found.page.evaluate(MEASURE)
        assert set(plots) == PLOTS
        for name, plot in plots.items():
            assert min(plot["width"], plot["height"]) > 60, name
            assert plot["drawn"] == plot["painted"] == plot["shapes"] > 2, name
            assert plot["smallest"] >= 10, f"{name} has words of {plot['smallest']} px"
            assert plot["outside"] == 0, f"{name} has words outside of its picture"
        assert found.page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "it scrolls sideways"
        paper = found.page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert paper == ("rgb(13, 16, 21)" if dark else "rgb(245, 246, 249)")
        assert found.said == []
        assert [url for url in found.asked if not url.startswith("data:")] == [found.page.url]


def test_a_picture_has_its_numbers_beside_it(browser: Browser, service: Service, job_id: str) -> None:
    with visit(browser, service, f"/v1/jobs/{job_id}/report") as found:
        table = found.page.locator("#speed table")
        assert not table.is_visible()
        found.page.locator("#speed summary").click()
        assert table.is_visible()
        assert "team/rival" in table.inner_text()


def test_a_jobs_page_leads_to_its_report(browser: Browser, service: Service, job_id: str) -> None:
    with visit(browser, service, f"/jobs/{job_id}") as found:
        found.page.get_by_text("The report: plots, proof and samples").click()
        found.page.wait_for_selector("#heatmap svg")
        assert found.page.url.endswith(f"/v1/jobs/{job_id}/report")
        assert found.asked_elsewhere == []


def test_a_page_is_printed_on_paper_in_light_colours(browser: Browser, service: Service, job_id: str) -> None:
    with visit(browser, service, f"/v1/jobs/{job_id}/report", dark=True) as found:
        found.page.emulate_media(media="print")
        assert found.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        assert found.page.pdf().startswith(b"%PDF")


def test_what_a_test_made_can_be_saved_and_opened_alone(
    browser: Browser, service: Service, job_id: str, tmp_path: Path
) -> None:
    answer = service.http.get(f"/v1/jobs/{job_id}/report", headers={"Accept": "text/html"})
    (tmp_path / "report.html").write_bytes(answer.content)
    page = browser.new_page()
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.goto(f"file://{tmp_path / 'report.html'}")
    assert set(page.evaluate(MEASURE)) == PLOTS
    assert said == []
    page.close()
