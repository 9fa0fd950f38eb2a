"""The pages as the service answers them: what they list, and that nothing in them acts but their own files."""

import json
import re
import time
from typing import Any

import httpx
import pytest
from sqlalchemy import insert, select, update

from app.db.models import JobEventRow, JobRow
from app.hub.publishing import StagedFile, commit_files
from app.jobs import repository
from app.jobs.event_log import Event
from tests.integration.api.conftest import MODEL, Service, jsonl, problem_of
from tests.integration.api.test_jobs import claim, fail

PAGE = {"Accept": "text/html"}
PAGES = ("/", "/new", "/compare", "/models", f"/models/{MODEL}", "/datasets", "/webhooks", "/workers", "/keys")


def ids_on(text: str) -> list[str]:
    return re.findall(r'data-job="(\w+)"', text)


def live_of(text: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="live">(.*?)</script>', text, re.DOTALL)
    assert found
    live: dict[str, Any] = json.loads(found[1])
    return live


def test_the_page_of_a_job_without_a_worker_says_which_command_starts_one(service: Service) -> None:
    page = service.http.get(f"/jobs/{service.submit()['id']}", headers=PAGE).text
    assert "start one with <code>streamline worker</code>." in page


def test_the_list_is_filtered_by_state_model_and_labels_and_counts_what_it_leaves_out(service: Service) -> None:
    waiting = service.submit(labels={"team": "red", "run": "1"})["id"]
    failed = service.submit(labels={"team": "red"})["id"]
    other = service.submit(labels={"team": "100%"})["id"]
    fail(service, failed, claim(service, failed))

    def listed(query: str) -> set[str]:
        return set(ids_on(service.http.get(f"/?{query}", headers=PAGE).text))

    assert listed("") == {waiting, failed, other}
    assert listed("state=failed") == {failed}
    assert listed("label=team%3Dred") == {waiting, failed}
    assert listed("label=team%3Dred,%20run%3D1") == {waiting}
    assert listed("label=team%3D100%25") == {other}
    assert listed("label=nonsense") == set()
    assert listed("model=STORIES") == {waiting, failed, other}
    assert listed("model=s%25s") == set(), "a percent sign is a letter"
    assert listed("state=queued&label=team%3Dred&model=demo") == {waiting}
    page = service.http.get("/?label=team%3Dred", headers=PAGE).text
    assert re.findall(r">(\w+) <b>([\d,]+)</b>", page) == [("all", "2"), ("queued", "1"), ("failed", "1")]


def test_pages_follow_each_other_by_cursor(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.web.jobs._ON_A_PAGE", 2)
    made = [service.submit(labels={"n": "x"})["id"] for _ in range(5)]
    seen, address = [], "/?label=n%3Dx"
    while address:
        text = service.http.get(address, headers=PAGE).text
        seen += ids_on(text)
        found = re.search(r'<a href="([^"]+)" rel="next"', text)
        address = found[1].replace("&amp;", "&") if found else ""
    assert seen == made[::-1]
    assert problem_of(service.http.get("/?cursor=made-up"), 422)["parameter"] == "cursor"


def test_asking_again_for_an_unchanged_list_costs_no_list(service: Service) -> None:
    job_id = service.submit()["id"]
    page = service.http.get("/", headers=PAGE)
    assert page.headers["etag"].strip('"') in page.text
    again = {"If-None-Match": page.headers["etag"]} | PAGE
    assert service.http.get("/?part=list", headers=again).status_code == 304
    service.http.post(f"/v1/jobs/{job_id}/cancel")
    changed = service.http.get("/?part=list", headers=again)
    assert changed.status_code == 200
    assert "cancelled" in changed.text
    assert "<html" not in changed.text


def got_within(seconds: float, service: Service, address: str) -> httpx.Response:
    """The page, which takes no longer where nobody else has the processor meanwhile: the quickest of several times."""
    took: list[float] = []
    while not took or (min(took) >= seconds and len(took) < 20):
        began = time.perf_counter()
        page = service.http.get(address, headers=PAGE)
        took.append(time.perf_counter() - began)
    assert min(took) < seconds, address
    return page


def test_ten_thousand_jobs_are_listed_in_a_moment(service: Service) -> None:
    row = service.submit()
    with service.sessions.begin() as session:
        spec = session.scalar(select(JobRow.spec).where(JobRow.id == row["id"]))
        rows = [
            {"id": f"{n:032x}", "state": "succeeded" if n % 3 else "failed", "spec": spec, "model": f"team/m{n % 7}"}
            for n in range(10_000)
        ]
        session.execute(insert(JobRow), rows)
    for query in ("", "?state=failed", "?model=m3", "?state=failed&model=m3"):
        page = got_within(0.5, service, f"/{query}")
        assert len(ids_on(page.text)) == 50
    assert "<b>10,001</b>" in service.http.get("/", headers=PAGE).text


def test_a_jobs_page_holds_its_course_whole_and_of_its_log_the_end(service: Service) -> None:
    job_id: str = service.submit()["id"]
    token = claim(service, job_id)
    table = [[0.9, 0.8], [0.7]]
    begin = [
        Event("stage_started", {"stage": "score"}),
        Event("scores", {"stage": "score", "metric": "cosine", "better": "higher", "table": table}),
        Event("metric", {"stage": "train", "phase": "mse", "step": 1, "steps": 9, "loss": 0.5, "tokens": 7}),
    ]
    with service.sessions.begin() as session:
        repository.advance(session, job_id, token, stage="train", progress=0.5, events=begin)
    with service.sessions.begin() as session:
        start = session.scalars(select(JobRow.event_count).where(JobRow.id == job_id)).one()
        rows = [
            {"job_id": job_id, "seq": start + n, "kind": "log", "data": {"stage": "train", "message": f"line {n}"}}
            for n in range(1, 100_001)
        ]
        session.execute(insert(JobEventRow), rows)
        session.get_one(JobRow, job_id).event_count = start + 100_000
    page = got_within(1.5, service, f"/jobs/{job_id}")
    live = live_of(page.text)
    kinds = [event["event"] for event in live["events"]]
    assert kinds[:5] == ["state", "state", "stage_started", "scores", "metric"]
    assert kinds[5:] == ["log"] * 200
    assert live["events"][3]["data"]["table"] == table
    assert "tokens" not in live["events"][4]["data"], "nothing that no picture shows"
    assert live["events"][-1]["data"]["message"] == "line 100000"
    assert live["last"] == start + 100_000
    assert len(page.content) < 200_000
    service.http.post(f"/v1/jobs/{job_id}/cancel")


@pytest.mark.parametrize("path", PAGES)
def test_only_the_services_own_files_act_on_a_page(service: Service, path: str) -> None:
    job_id = service.submit(labels={"a": "<script>alert(1)</script>"})["id"]
    service.upload(jsonl("one", "two"))
    for address in (path, f"/jobs/{job_id}"):
        page = service.http.get(address, headers=PAGE)
        assert page.status_code == 200
        policy = dict(part.strip().partition(" ")[::2] for part in page.headers["content-security-policy"].split(";"))
        assert policy["default-src"] == "'none'"
        assert policy["script-src"] == policy["style-src"] == "'self'"
        assert (page.headers["cache-control"], page.headers["x-content-type-options"]) == ("no-store", "nosniff")
        assert not re.search(r"<[^>]+\s(on\w+|style)=", page.text), "no handler, no style in the page"
        assert not re.search(r"<style|<script(?![^>]*(src=|application/json))", page.text)
        for file in re.findall(r'(?:src|href)="(/static/[^"]+)"', page.text):
            found = service.http.get(file)
            assert found.status_code == 200
            assert "immutable" in found.headers["cache-control"]
        assert "<script>alert" not in page.text


def test_what_goes_wrong_is_a_page_for_people_and_a_problem_for_programs(service: Service) -> None:
    page = service.http.get("/jobs/none", headers=PAGE)
    assert page.status_code == 404
    assert "There is no job &#39;none&#39;" in page.text
    assert problem_of(service.http.get("/jobs/none"), 404)["code"] == "job_not_found"
    assert service.http.get("/static/old/app.css").headers["cache-control"] == "no-cache"
    assert problem_of(service.http.get("/static/old/none.js"), 404)["code"] == "file_not_found"


def test_where_nothing_is_a_browser_finds_a_page_and_a_model_at_its_name(service: Service) -> None:
    for path in (MODEL, f"{MODEL}/blob/main/config.json", f"{MODEL}/commits/main"):
        found = service.http.get(f"/{path}", headers=PAGE, follow_redirects=True)
        assert (found.status_code, found.url.path) == (200, f"/models/{MODEL}")
    for path, link in (
        ("/jobs/a/b/c", "/"),
        ("/jobs/a/b", "/"),
        ("/team/absent", "/models"),
        (f"/models/{MODEL}?revision=absent", f"/models/{MODEL}"),
    ):
        page = service.http.get(path, headers=PAGE, follow_redirects=True)
        assert page.status_code == 404
        assert "<h1>Nothing here</h1>" in page.text
        assert f'<a href="{link}">' in page.text
        assert "`" not in page.text
        assert page.headers["content-security-policy"].startswith("default-src 'none'")
    assert problem_of(service.http.get("/team/absent"), 404)["code"] == "not_found"
    assert problem_of(service.http.post("/team/absent", headers=PAGE), 404)["code"] == "not_found"
    assert problem_of(service.http.get(f"/models/{MODEL}?revision=absent"), 404)["code"] == "not_found"


def verdicts(page: str) -> list[str]:
    """What the table of revisions says of each."""
    (table,) = re.findall('aria-label="Revisions">(.*?)</table>', page, re.DOTALL)
    return re.findall(">(passed|missed)</span>", table)


def test_a_models_page_says_of_each_revision_whether_it_missed_its_gates(service: Service) -> None:
    pages, commits, told = {}, {}, []
    for verdict, ref in (("fail", None), ("pass", "main")):
        blob = service.parts.blobs.put_bytes(verdict.encode())
        staged = [StagedFile("model.bin", blob.size, blob.sha256, blob.git_oid)]
        job = service.submit(labels={"verdict": verdict})["id"]
        with service.sessions.begin() as session:
            session.execute(update(JobRow).where(JobRow.id == job).values(verdict=verdict))
            commits[verdict] = commit_files(session, "team/judged", staged, "m", ref=ref, tag=job, job_id=job).oid
        pages[verdict] = service.http.get("/models/team/judged", headers=PAGE).text
        told.append(service.http.head("/team/judged/resolve/main/model.bin").headers.get("x-error-message", ""))
    assert "no job has passed its gates" in pages["fail"]
    assert verdicts(pages["fail"]) == ["missed"], "it is listed although `main` is still empty"
    assert "once it has passed its gates" in told[0]
    missed = service.http.get(f"/models/team/judged?revision={commits['fail']}", headers=PAGE).text
    assert "missed its gate; not on main" in missed
    assert verdicts(pages["pass"]) == ["passed", "missed"], "the newest first"
    assert "missed its gate" not in pages["pass"], "which shows what passed"


def test_a_new_job_begins_as_another_was(service: Service) -> None:
    job = service.submit(seed=7, gates={"max_perplexity_ratio": 1.3})
    page = service.http.get(f"/new?from={job['id']}", headers=PAGE)
    found = re.search(r'id="start">(.*?)</script>', page.text, re.DOTALL)
    assert found
    start = json.loads(found[1])
    assert (start["seed"], start["gates"], start["model"]["repo"]) == (7, {"max_perplexity_ratio": 1.3}, MODEL)
    assert service.http.post("/v1/plans", json=start).status_code == 200, "it is a request as it stands"
    assert service.http.get("/new?from=none", headers=PAGE).status_code == 404
