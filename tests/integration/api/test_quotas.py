"""What a key may use, and the record of what was done with it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import delete

from app.auth import audit, keys
from app.auth.keys import Limits
from app.auth.scopes import Scope
from app.db.models import AuditRow
from tests.integration.api.conftest import JOB, Service, jsonl, problem_of


@contextmanager
def a_key(service: Service, **limits: int) -> Iterator[tuple[str, dict[str, str]]]:
    """The id and the headers of a key with these limits."""
    with service.sessions.begin() as session:
        row, key = keys.create(session, "ci", Scope.SUBMIT, limits=Limits(**limits))
    try:
        yield row.id, {"Authorization": f"Bearer {key}"}
    finally:
        with service.sessions.begin() as session:
            session.delete(session.merge(row))


def refused(answer: Any, *words: str) -> None:
    problem = problem_of(answer, 429)
    assert problem["code"] == "quota_exceeded"
    assert 1 <= int(answer.headers["retry-after"]) <= 86400
    assert all(word in problem["detail"] for word in words), problem["detail"]


def test_a_key_with_all_its_jobs_in_the_queue_makes_no_more_until_one_leaves_it(service: Service) -> None:
    with a_key(service, max_queued_jobs=2) as (_, headers):
        first = service.http.post("/v1/jobs", json=JOB, headers=headers).json()
        again = {"Idempotency-Key": "same"} | headers
        assert service.http.post("/v1/jobs", json=JOB, headers=again).status_code == 202
        refused(service.http.post("/v1/jobs", json=JOB, headers=headers), "2 queued")
        assert service.http.post("/v1/jobs", json=JOB, headers=again).status_code == 202, "that job is there already"
        assert service.http.post(f"/v1/jobs/{first['id']}/cancel", headers=headers).status_code == 202
        assert service.http.post("/v1/jobs", json=JOB, headers=headers).status_code == 202
        refused(service.http.post(f"/v1/jobs/{first['id']}/retry", headers=headers), "2 queued")


def test_requests_per_minute_count_on_every_route_the_hubs_too(service: Service) -> None:
    with a_key(service, max_requests_per_minute=3) as (_, headers):
        for path in ("/v1/jobs", "/api/models", "/"):
            assert service.http.get(path, headers=headers).status_code == 200
        refused(service.http.get("/v1/jobs", headers=headers), "3 requests per minute")
        hub = service.http.get("/api/models", headers=headers)
        assert (hub.status_code, hub.headers["x-error-message"][:19]) == (429, "This key may use 3 ")
        with a_key(service) as (_, other):
            assert service.http.get("/v1/jobs", headers=other).status_code == 200


def test_bytes_per_day_are_counted_with_and_without_a_content_length(service: Service) -> None:
    content = jsonl("x" * 3000)
    with a_key(service, max_bytes_per_day=8000) as (_, headers):

        def upload(name: str) -> Any:
            return service.http.post("/v1/datasets", files={"file": (name, content)}, headers=headers)

        assert upload("a.jsonl").status_code == 201
        request = service.http.build_request("POST", "/v1/datasets", files={"file": ("b.jsonl", content)})
        form = request.read()
        chunked = headers | {"Content-Type": request.headers["content-type"]}
        answer = service.http.post("/v1/datasets", content=iter([form[:1000], form[1000:]]), headers=chunked)
        assert answer.status_code == 201, answer.text
        refused(upload("c.jsonl"), "8,000 bytes")
        assert service.http.get("/v1/datasets", headers=headers).status_code == 200, "reading needs no body"
        too_large = service.http.post("/v1/datasets", files={"file": ("d.jsonl", bytes(9000))}, headers=headers)
        assert problem_of(too_large, 429)["code"] == "quota_exceeded"
        assert "this request alone has" in too_large.json()["detail"]
        assert "retry-after" not in too_large.headers, "it would never fit"


@pytest.fixture
def log(service: Service) -> Service:
    with service.sessions.begin() as session:
        session.execute(delete(AuditRow))
    return service


def test_every_change_and_every_refused_one_is_in_the_audit_log_with_its_key(log: Service) -> None:
    with a_key(log) as (key_id, headers):
        made = log.http.post("/v1/jobs", json=JOB, headers=headers | {"X-Request-ID": "ci-1"}).json()
        log.http.get("/v1/jobs", headers=headers)
        log.http.post(f"/v1/jobs/{made['id']}/cancel", headers=headers)
        log.http.post("/v1/jobs", json=JOB)
        log.http.post("/api/repos/create", json={"name": "x/y", "type": "model"}, headers=headers)
        with log.sessions() as session:
            rows = [(row.key_id, row.action, row.target, row.status) for row in audit.recent(session)]
            assert audit.recent(session, key_id=key_id)[0].request_id == "ci-1"
    assert rows == [
        (key_id, "POST", "/v1/jobs", 202),
        (key_id, "POST", f"/v1/jobs/{made['id']}/cancel", 202),
        ("", "POST", "/v1/jobs", 401),
        (key_id, "POST", "/api/repos/create", 200),
    ]
