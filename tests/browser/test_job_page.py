"""One job as a person watches it: stages, curves, scores and the log move while it runs; buttons do what they say."""

import json
import math
import re
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect
from sqlalchemy import insert, select

from app.db.models import JobEventRow, JobRow
from app.jobs import repository
from tests.browser.conftest import assert_painted_within, at_work, finished_job, hold_timers, scores, visit
from tests.integration.api.conftest import Service
from tests.unit.app.report.reports import full

pytestmark = pytest.mark.chromium


def points(page: Page, kind: str) -> int:
    return len((page.locator(f"#loss-figure polyline.{kind}").last.get_attribute("points") or "").split())


def test_a_job_is_drawn_while_it_runs(browser: Browser, service: Service) -> None:
    job_id, tell = at_work(service)
    with visit(browser, service, f"/jobs/{job_id}") as found:
        page = found.page
        assert page.locator("#loss-figure").is_hidden()
        counted = {"total": 64, "unit": "sequences"}
        tell(("stage_started", {}), ("progress", counted | {"done": 16, "time": 100.0}), stage="score")
        expect(page.locator("[data-stage=score]")).to_have_attribute("aria-current", "step")
        expect(page.locator("[data-stage=score] .detail")).to_have_text("25 %")
        tell(("progress", counted | {"done": 32, "time": 102.0}), stage="score")
        expect(page.locator("#pace")).to_have_text("score: 32 of 64 sequences · 8.00/s · 4.0 s left")
        tell(("scores", scores()), ("stage_finished", {"seconds": 3.25, "skipped": False}), stage="score")
        expect(page.locator("#scores-figure svg rect")).to_have_count(300 + 24)
        expect(page.locator("[data-stage=score] .detail")).to_have_text("3.3 s")
        assert page.locator("#scores-figure .outline").count() == 0
        tell(("selected", {"windows": [[11, 17]]}), stage="select")
        expect(page.locator("#scores-figure .outline")).to_have_count(1)
        tell(("stage_started", {}), ("metric", {"phase": "mse", "step": 0, "steps": 40, "held_out_loss": 1.0}))
        moved = []
        for step in range(1, 21):
            loss = {"phase": "mse", "step": step, "steps": 40, "loss": math.exp(-step / 8)}
            tell(("metric", loss), ("progress", {"done": step, "total": 40, "unit": "steps of mse"}), progress=0.5)
            if step in {5, 20}:
                tell(("metric", {"phase": "mse", "step": step, "steps": 40, "held_out_loss": math.exp(-step / 9)}))
                expect(page.locator("#loss-figure circle:has(title)")).to_have_count(2 if step == 5 else 3)
                moved.append(points(page, "soft"))
        assert moved == [5, 20]
        expect(page.locator("#loss-figure figcaption")).to_contain_text("from 1.00 to 0.108")
        expect(page.locator("#log")).to_contain_text("step 20, held-out loss")
        expect(page.locator("#bar")).to_have_attribute("value", re.compile("^(50|0)"))
        assert (found.said, found.asked_elsewhere) == ([], [])


def test_a_curve_that_goes_on_after_a_kill_has_each_step_once_and_each_phase_its_panel(
    browser: Browser, service: Service
) -> None:
    job_id, tell = at_work(service)
    losses = [("metric", {"phase": "mse", "step": step, "steps": 9, "loss": 1 / step}) for step in range(1, 7)]
    tell(("stage_started", {}), *losses, ("stage_started", {}), *losses[3:])
    tell(*[("metric", {"phase": "lm", "step": step, "steps": 9, "loss": 2 + 1 / step}) for step in range(1, 4)])
    with visit(browser, service, f"/jobs/{job_id}") as found:
        drawn = found.page.evaluate(
            "[...document.querySelectorAll('#loss-figure polyline.soft')].map(line => line.points.length)"
        )
        assert drawn == [6, 3]
        assert found.said == []


def test_the_scores_of_a_later_round_say_whose_they_are(browser: Browser, service: Service) -> None:
    job_id, tell = at_work(service)
    tell(("stage_started", {"round": 1, "rounds": 2}), ("scores", scores()), stage="score")
    with visit(browser, service, f"/jobs/{job_id}") as found:
        caption = found.page.locator("#scores-figure figcaption")
        expect(caption).to_contain_text("higher score.")
        expect(caption).not_to_contain_text("round")
        tell(("stage_started", {"round": 2, "rounds": 2}), ("scores", scores(18)), stage="score")
        expect(caption).to_contain_text("Of round 2 of 2: layers are numbered in what the rounds before left.")
        assert found.said == []


def test_the_speed_of_a_finished_job_says_whether_it_tells_anything(
    browser: Browser, service: Service, tmp_path: Path
) -> None:
    metrics = full()["metrics"] | {"intervals": {"speedup": [0.9, 1.6]}}
    with visit(browser, service, f"/jobs/{finished_job(service, tmp_path, metrics=metrics)}") as found:
        told = "median of paired rounds, 95 % 0.90 to 1.60: too noisy to tell"
        expect(found.page.locator(".measures")).to_contain_text(told)


def test_the_end_is_shown_where_it_comes(browser: Browser, service: Service) -> None:
    job_id, tell = at_work(service)
    tell(("stage_started", {}))
    with visit(browser, service, f"/jobs/{job_id}") as found:
        page = found.page
        expect(page.locator("[data-stage=train]")).to_have_class("now")
        with service.sessions.begin() as session:
            token = session.scalars(select(JobRow.fencing_token).where(JobRow.id == job_id)).one()
            error = {"code": "not_finite", "detail": "The loss is no number.", "stage": "train"}
            repository.fail(session, job_id, token, error=error)
        expect(page.locator(".notice", has_text="The loss is no number.")).to_be_visible()
        expect(page.locator("#state")).to_have_text("failed")
        expect(page.locator("[data-stage=train]")).to_have_class("ended")
        page.get_by_role("button", name="Go on from the last finished stage").click()
        expect(page.locator("#state")).to_have_text("queued")
        expect(page.locator("#waiting")).to_contain_text("No worker has been seen")
        page.get_by_role("button", name="Cancel").click()
        expect(page.locator("#state")).to_have_text("cancelled")
        assert service.http.get(f"/v1/jobs/{job_id}").json()["state"] == "cancelled"
        assert found.said == []


def test_a_file_of_a_finished_job_is_downloaded(browser: Browser, service: Service, tmp_path: Path) -> None:
    job_id = finished_job(service, tmp_path)
    with visit(browser, service, f"/jobs/{job_id}") as found:
        found.page.get_by_text("1 file of this job").click()
        with found.page.expect_download() as coming:
            found.page.get_by_role("link", name="report.json").click()
        assert json.loads(coming.value.path().read_bytes())["metrics"]
        expect(found.page.locator(".measures")).to_contain_text("smaller by")
        assert found.page.locator(".stages .done").count() == 9
        assert found.said == []


def test_a_request_is_copied_as_what_makes_it_again(browser: Browser, service: Service) -> None:
    job_id = service.submit(seed=11)["id"]
    with visit(browser, service, f"/jobs/{job_id}") as found:
        found.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        later = hold_timers(found.page)
        for name, begins in (("Copy as curl", f"curl -sS {service.url}/v1/jobs "), ("Copy as JSON", "{")):
            found.page.get_by_role("button", name=name).click()
            expect(found.page.get_by_role("button", name="Copied")).to_be_visible()
            text: str = found.page.evaluate("navigator.clipboard.readText()")
            assert text.startswith(begins)
            assert '"seed": 11' in text
            later()
            expect(found.page.get_by_role("button", name=name)).to_be_visible()


def test_a_log_of_a_hundred_thousand_lines_begins_with_its_end_and_goes_back(
    browser: Browser, service: Service
) -> None:
    job_id: str = service.submit()["id"]
    with service.sessions.begin() as session:
        rows = [
            {"job_id": job_id, "seq": 1 + n, "kind": "log", "data": {"stage": "score", "message": f"line {n}"}}
            for n in range(1, 100_001)
        ]
        session.execute(insert(JobEventRow), rows)
        session.get_one(JobRow, job_id).event_count = 100_001
    with visit(browser, service, f"/jobs/{job_id}") as found:
        lines = found.page.locator("#log > div")
        expect(lines).to_have_count(200)
        expect(lines.last).to_contain_text("line 100000")
        assert found.page.evaluate("log => log.scrollTop > 0", found.page.locator("#log").element_handle())
        found.page.get_by_role("button", name="Older lines").click()
        expect(lines).to_have_count(400)
        expect(lines.first).to_contain_text("line 99601")
        assert_painted_within(3000, found.page)
        assert found.said == []
