"""A job's events: every one, in order, once; now, later, and after a dropped connection."""

import json
import threading
import time
from typing import Any

import httpx
import pytest

from app.api import events as routes
from app.auth import keys
from app.auth.scopes import Scope
from tests.integration.api.conftest import Service, problem_of
from tests.integration.api.test_jobs import advance, claim, fail

JSON = {"Accept": "application/json"}


def parse(text: str) -> list[dict[str, Any]]:
    """The events of a stream, as the standard parses them (comments and `retry` left out)."""
    found = []
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if line and not line.startswith(":"))
        if "data" in fields:
            found.append({"id": int(fields["id"]), "event": fields["event"], "data": json.loads(fields["data"])})
    return found


def a_failed_job(service: Service, steps: int = 3) -> str:
    job_id: str = service.submit()["id"]
    token = claim(service, job_id)
    for step in range(steps):
        advance(service, job_id, token, (step + 1) / (steps + 1))
    fail(service, job_id, token)
    return job_id


def test_the_stream_and_the_list_are_the_same_events(service: Service) -> None:
    job_id = a_failed_job(service)
    listed = service.http.get(f"/v1/jobs/{job_id}/events", headers=JSON).json()
    streamed = service.http.get(f"/v1/jobs/{job_id}/events")
    assert streamed.headers["content-type"].startswith("text/event-stream")
    assert [{k: event[k] for k in ("id", "event", "data")} for event in listed["items"]] == parse(streamed.text)
    assert [event["id"] for event in listed["items"]] == [1, 2, 3, 4, 5, 6]
    assert listed["next_after"] is None


def test_the_stream_goes_on_behind_the_last_event_that_was_seen(service: Service) -> None:
    job_id = a_failed_job(service)
    answer = service.http.get(f"/v1/jobs/{job_id}/events", headers={"Last-Event-ID": "4"})
    assert [event["id"] for event in parse(answer.text)] == [5, 6]


def test_a_client_that_has_seen_all_of_a_final_job_is_told_not_to_come_back(service: Service) -> None:
    job_id = a_failed_job(service)
    assert service.http.get(f"/v1/jobs/{job_id}/events", headers={"Last-Event-ID": "6"}).status_code == 204


def test_the_stream_follows_a_running_job_and_ends_with_it(service: Service) -> None:
    job_id: str = service.submit()["id"]

    def work() -> None:
        token = claim(service, job_id)
        for step in range(3):
            time.sleep(0.2)
            advance(service, job_id, token, step / 3)
        fail(service, job_id, token)

    worker = threading.Thread(target=work)
    worker.start()
    answer = service.http.get(f"/v1/jobs/{job_id}/events")  # returns when the server ends the stream
    worker.join()
    events = parse(answer.text)
    assert [event["id"] for event in events] == list(range(1, len(events) + 1))
    assert [event["data"]["state"] for event in events if event["event"] == "state"] == ["queued", "running", "failed"]


def test_a_stream_with_more_events_than_a_batch_loses_none(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routes, "_BATCH", 4)
    job_id = a_failed_job(service, steps=10)
    events = parse(service.http.get(f"/v1/jobs/{job_id}/events").text)
    assert [event["id"] for event in events] == list(range(1, 14))


def test_an_idle_stream_is_kept_alive_by_comments(shared_service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routes, "KEEP_ALIVE_SECONDS", 0.1)
    job_id = shared_service.submit()["id"]
    with httpx.stream("GET", f"{shared_service.url}/v1/jobs/{job_id}/events", timeout=60) as answer:
        lines = answer.iter_lines()
        comments = 0
        while comments < 2:
            comments += next(lines).startswith(":")
    shared_service.http.post(f"/v1/jobs/{job_id}/cancel")


def test_a_stream_ends_when_its_key_is_revoked_or_its_login_ended(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(routes, "KEEP_ALIVE_SECONDS", 0.1)
    job_id = service.submit()["id"]
    with service.sessions.begin() as session:
        row, key = keys.create(session, "watcher", Scope.READ)
    own = {"Origin": service.url, "Sec-Fetch-Site": "same-origin", "Accept": "text/html"}
    try:
        with httpx.Client(base_url=service.url, timeout=60) as browser:
            browser.post("/login", data={"key": key}, headers=own)
            with browser.stream("GET", f"/v1/jobs/{job_id}/events") as by_login:
                assert browser.post("/logout", headers=own).status_code == 303
                assert by_login.read()  # returns: the stream has ended
            bearer = {"Authorization": f"Bearer {key}"}
            with browser.stream("GET", f"/v1/jobs/{job_id}/events", headers=bearer) as by_key:
                lines = by_key.iter_lines()
                while not next(lines).startswith(":"):
                    pass  # it goes on while the key is good
                with service.sessions.begin() as session:
                    keys.revoke(session, row.id)
                assert list(lines)[-1] == ""
            assert browser.get(f"/v1/jobs/{job_id}/events", headers=bearer).status_code == 401
    finally:
        with service.sessions.begin() as session:
            session.delete(session.merge(row))


def test_the_list_comes_in_pages(service: Service) -> None:
    job_id = a_failed_job(service)
    first = service.http.get(f"/v1/jobs/{job_id}/events?limit=4", headers=JSON).json()
    assert first["next_after"] == 4
    rest = service.http.get(f"/v1/jobs/{job_id}/events?after=4", headers=JSON).json()
    assert [event["id"] for event in first["items"] + rest["items"]] == [1, 2, 3, 4, 5, 6]


def test_accept_decides_between_stream_and_list(shared_service: Service) -> None:
    job_id = shared_service.submit()["id"]
    shared_service.http.post(f"/v1/jobs/{job_id}/cancel")
    path = f"/v1/jobs/{job_id}/events"
    for accept, media_type in [
        ("*/*", "text/event-stream"),
        ("text/event-stream", "text/event-stream"),
        ("application/json, text/event-stream;q=0.5", "application/json"),
        ("text/*;q=0.1, application/*", "application/json"),
    ]:
        answer = shared_service.http.get(path, headers={"Accept": accept})
        assert answer.headers["content-type"].startswith(media_type), accept
    assert problem_of(shared_service.http.get(path, headers={"Accept": "image/png"}), 406)["code"] == "not_acceptable"


def test_a_bad_last_event_id_and_an_unknown_job_are_problems(shared_service: Service) -> None:
    job_id = shared_service.submit()["id"]
    answer = shared_service.http.get(f"/v1/jobs/{job_id}/events", headers={"Last-Event-ID": "x"})
    assert problem_of(answer, 422)["parameter"].lower() == "last-event-id"
    assert problem_of(shared_service.http.get("/v1/jobs/none/events"), 404)["code"] == "job_not_found"
