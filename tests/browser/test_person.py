"""A morning at the pages: log in, look for a job, make one from the form, upload text."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from app.auth import keys
from app.auth.scopes import Scope
from tests.browser.conftest import visit
from tests.integration.api.conftest import MODEL, Service, jsonl

pytestmark = pytest.mark.chromium


@pytest.fixture
def key(service: Service) -> Iterator[str]:
    with service.sessions.begin() as session:
        row, key = keys.create(session, "Ada", Scope.SUBMIT)
    yield key
    with service.sessions.begin() as session:
        session.delete(session.merge(row))


def test_a_person_logs_in_submits_from_the_form_and_logs_out(browser: Browser, service: Service, key: str) -> None:
    with visit(browser, service, "/new") as found:
        page = found.page
        assert page.url == f"{service.url}/login?next=/new"
        page.get_by_label("API key").fill("hf_mistyped")
        page.get_by_role("button", name="Log in").click()
        expect(page.get_by_role("alert")).to_contain_text("not valid")
        page.get_by_label("API key").fill(key)
        page.get_by_role("button", name="Log in").click()
        page.wait_for_url(f"{service.url}/new")
        found.said.clear()  # a browser notes the refusal of the mistyped key
        assert page.evaluate("document.cookie") == "", "no script sees the login"

        page.get_by_label("Repository", exact=True).fill(MODEL)
        expect(page.locator("#plan")).to_contain_text("% smaller")
        page.get_by_label("Replacement").select_option("none")
        expect(page.locator("#plan")).to_contain_text("Puts in their place: nothing (none).")
        page.get_by_label("Layers fewer", exact=True).first.check()
        page.locator("[name='/target/layers']").fill("3")
        expect(page.locator("#plan")).to_contain_text("Removes 3 decoder layers")
        page.get_by_label("max perplexity ratio").fill("1.5")
        page.get_by_label("Labels").fill("made=by hand, run=7")
        expect(page.locator("#request")).to_contain_text('"made": "by hand"')
        page.get_by_role("button", name="Submit").click()
        page.wait_for_url(f"{service.url}/jobs/*")
        expect(page.locator("#state")).to_have_text("queued")
        job_id = page.url.rpartition("/")[2]
        answer = service.http.get(f"/v1/jobs/{job_id}", headers={"Authorization": f"Bearer {key}"}).json()
        assert answer["labels"] == {"made": "by hand", "run": "7"}
        assert (answer["spec"]["target"], answer["spec"]["gates"]["max_perplexity_ratio"]) == ({"layers": 3}, 1.5)
        assert found.said == []

        page.get_by_role("button", name="Log out").click()
        page.wait_for_url(f"{service.url}/login")
        page.goto(f"{service.url}/jobs/{job_id}")
        assert page.url == f"{service.url}/login?next=/jobs/{job_id}"


def test_what_is_wrong_is_said_at_its_field(browser: Browser, service: Service) -> None:
    with visit(browser, service, "/new") as found:
        page = found.page
        page.get_by_label("Repository", exact=True).fill(MODEL)
        sparsity = page.locator("[name='/target/sparsity']")
        sparsity.fill("2")
        expect(sparsity).to_have_attribute("aria-invalid", "true")
        expect(page.locator("#f-target-sparsity-error")).to_contain_text("allowed: more than 0")
        sparsity.fill("0.25")
        expect(page.locator("#plan")).to_contain_text("26.1 % smaller")
        assert sparsity.get_attribute("aria-invalid") is None
        page.get_by_text("More:").click()
        page.locator("[name='/scoring/sequences']").fill("0")
        expect(page.locator("#f-scoring-sequences-error")).to_be_visible()
        page.get_by_role("button", name="Submit").click()
        expect(page.locator("[name='/scoring/sequences']")).to_be_focused()
        assert page.url == f"{service.url}/new"


def test_the_list_keeps_itself_up_to_date_and_what_was_ticked(browser: Browser, service: Service) -> None:
    first = service.submit(labels={"page": "live"})["id"]
    with visit(browser, service, "/?label=page%3Dlive") as found:
        page = found.page
        page.get_by_label(f"compare job {first}").check()
        second = service.submit(labels={"page": "live"})["id"]
        expect(page.locator(f"[data-job='{second}']")).to_be_visible()
        service.http.post(f"/v1/jobs/{first}/cancel")
        expect(page.locator(f"[data-job='{first}'] .badge")).to_have_text("cancelled")
        assert page.get_by_label(f"compare job {first}").is_checked()
        page.get_by_role("link", name="cancelled").click()
        expect(page.locator("[data-job]")).to_have_count(1)
        assert found.said == []


def test_text_is_uploaded_and_then_there_to_choose(browser: Browser, service: Service, tmp_path: Path) -> None:
    file = tmp_path / "stories.jsonl"
    file.write_bytes(jsonl("Once upon a time.", "The end."))
    with visit(browser, service, "/datasets") as found:
        page = found.page
        page.get_by_label("File").set_input_files(file)
        page.get_by_label("Name").fill("my stories")
        page.get_by_role("button", name="Upload").click()
        expect(page.get_by_role("cell", name="my stories")).to_be_visible()
        page.goto(f"{service.url}/new")
        expect(page.get_by_label("my stories")).to_be_visible()
        bad = tmp_path / "bad.jsonl"
        bad.write_text("{")
        page.goto(f"{service.url}/datasets")
        page.get_by_label("File").set_input_files(bad)
        page.get_by_role("button", name="Upload").click()
        expect(page.locator("#refused")).to_contain_text("Line 1 is not JSON")
