"""What a job leaves behind is served by name, whole or in part, and nothing else is."""

import hashlib
import json
from pathlib import Path

import pytest
from sqlalchemy import update

from app.db.models import JobRow
from tests.integration.api.conftest import MODEL, Service, problem_of

REPORT = json.dumps({"metrics": {"sparsity": 0.25}}).encode()


def set_state(service: Service, job_id: str, state: str) -> None:
    with service.sessions.begin() as session:
        session.execute(update(JobRow).where(JobRow.id == job_id).values(state=state))


@pytest.fixture
def job_id(shared_service: Service, tmp_path: Path) -> str:
    """A job that has succeeded with artefacts, and a secret beside its directory."""
    found: str = shared_service.submit()["id"]
    set_state(shared_service, found, "succeeded")
    for name, content in (("report.json", REPORT), ("engine.log", b"line 1\nline 2\n")):
        (tmp_path / name).write_bytes(content)
    shared_service.parts.artefacts.write(found, {path.name: path for path in tmp_path.iterdir()})
    (shared_service.parts.settings.store_dir / "jobs" / "secret.txt").write_text("secret")
    (shared_service.parts.settings.store_dir / "jobs" / found / "unlisted.txt").write_text("secret")
    return found


def test_the_report_is_json(shared_service: Service, job_id: str) -> None:
    answer = shared_service.http.get(f"/v1/jobs/{job_id}/report")
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == {"metrics": {"sparsity": 0.25}}


def test_the_report_is_a_page_for_those_who_ask_for_html(shared_service: Service, job_id: str) -> None:
    path = f"/v1/jobs/{job_id}/report"
    answer = shared_service.http.get(path, headers={"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"})
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["vary"] == "Accept"
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert f"<h1>{MODEL}</h1>" in answer.text
    again = shared_service.http.get(path, headers={"Accept": "text/html", "If-None-Match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert answer.headers["etag"] != shared_service.http.get(path).headers["etag"]
    assert problem_of(shared_service.http.get(path, headers={"Accept": "image/png"}), 406)["code"] == "not_acceptable"


def test_a_report_of_a_later_version_is_refused_as_a_page_only(
    shared_service: Service, job_id: str, tmp_path: Path
) -> None:
    (tmp_path / "report.json").write_text('{"schema": 99}')
    shared_service.parts.artefacts.write(job_id, {"report.json": tmp_path / "report.json"})
    answer = shared_service.http.get(f"/v1/jobs/{job_id}/report", headers={"Accept": "text/html"})
    assert "schema version 99" in problem_of(answer, 406)["detail"]
    assert shared_service.http.get(f"/v1/jobs/{job_id}/report").json() == {"schema": 99}


def test_files_are_listed_with_their_hashes_and_served(shared_service: Service, job_id: str) -> None:
    listed = shared_service.http.get(f"/v1/jobs/{job_id}/files").json()["items"]
    assert [file["path"] for file in listed] == ["engine.log", "report.json"]
    for file in listed:
        answer = shared_service.http.get(f"/v1/jobs/{job_id}/files/{file['path']}")
        assert hashlib.sha256(answer.content).hexdigest() == file["sha256"]
        assert answer.headers["etag"] == f'"{file["sha256"]}"'
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert len(answer.content) == file["size"]


def test_a_part_of_a_file_and_an_unchanged_file(shared_service: Service, job_id: str) -> None:
    path = f"/v1/jobs/{job_id}/files/engine.log"
    part = shared_service.http.get(path, headers={"Range": "bytes=5-5"})
    assert (part.status_code, part.content, part.headers["content-range"]) == (206, b"1", "bytes 5-5/14")
    etag = shared_service.http.get(path).headers["etag"]
    assert shared_service.http.get(path, headers={"If-None-Match": etag}).status_code == 304
    assert shared_service.http.get(path, headers={"If-None-Match": '"other"'}).status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "../secret.txt",
        "..%2fsecret.txt",
        "%2e%2e/secret.txt",
        "%2e%2e%2fsecret.txt",
        "a/../../secret.txt",
        "/etc/passwd",
        "%2fetc%2fpasswd",
        "unlisted.txt",
        "manifest.json",
        "report.json/",
        "./report.json",
        "a%00b",
        "..%5csecret.txt",
        "",
    ],
)
def test_no_path_leads_out_of_the_jobs_own_files(shared_service: Service, job_id: str, path: str) -> None:
    answer = shared_service.http.get(f"{shared_service.url}/v1/jobs/{job_id}/files/{path}")
    # Clients and servers may tidy `..` up before a route sees it; nothing secret comes back either way.
    assert b"secret" not in answer.content.replace(b"secret.txt", b"")
    assert answer.status_code == 404 or answer.json().keys() == {"items"} or answer.content == REPORT


@pytest.mark.parametrize("state", ["queued", "running", "failed", "cancelled"])
def test_artefacts_come_with_success(shared_service: Service, job_id: str, state: str) -> None:
    set_state(shared_service, job_id, state)
    for path in ("report", "files", "files/report.json"):
        problem = problem_of(shared_service.http.get(f"/v1/jobs/{job_id}/{path}"), 404)
        assert problem["code"] == "file_not_found"
        assert f"is {state}" in problem["detail"]


def test_a_job_without_artefacts_says_so(shared_service: Service) -> None:
    job_id = shared_service.submit(seed=5)["id"]
    set_state(shared_service, job_id, "succeeded")
    assert shared_service.http.get(f"/v1/jobs/{job_id}/files").json() == {"items": []}
    assert problem_of(shared_service.http.get(f"/v1/jobs/{job_id}/report"), 404)["code"] == "file_not_found"
    for path in ("report", "files", "files/x"):
        assert problem_of(shared_service.http.get(f"/v1/jobs/none/{path}"), 404)["code"] == "job_not_found"


def test_the_reports_schema_is_published_at_an_address_that_stays(shared_service: Service) -> None:
    answer = shared_service.http.get("/v1/schemas/report-1.json")
    assert answer.headers["content-type"] == "application/schema+json"
    assert answer.json()["properties"]["schema"] == {"const": 1, "description": "Version of this form."}
    assert problem_of(shared_service.http.get("/v1/schemas/report-0.json"), 404)["code"] == "file_not_found"
