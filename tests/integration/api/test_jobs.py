"""The life of a job as a client sees it: submitted, watched, listed, cancelled, retried."""

import base64
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime

import httpx
import pytest
from sqlalchemy import update

from app.db.models import JobRow
from app.jobs import queue, repository
from app.jobs.event_log import Event
from tests.integration.api.conftest import JOB, MODEL, Service, problem_of
from tests.service_process import wait_until


def claim(service: Service, job_id: str) -> int:
    with service.sessions.begin() as session:
        taken = repository.claim(session, job_id, owner="test", lease_seconds=60)
    assert taken is not None
    return taken.token


def advance(service: Service, job_id: str, token: int, progress: float) -> None:
    with service.sessions.begin() as session:
        events = [Event("progress", {"stage": "score", "done": progress})]
        repository.advance(session, job_id, token, stage="score", progress=progress, events=events)


def fail(service: Service, job_id: str, token: int) -> None:
    with service.sessions.begin() as session:
        error = {"code": "corrupt_model", "detail": "Bad.", "stage": "fetch"}
        repository.fail(session, job_id, token, error=error)


def test_a_submitted_job_is_accepted_with_its_place_and_every_default(service: Service) -> None:
    answer = service.http.post("/v1/jobs", json=JOB)
    assert answer.status_code == 202
    job = answer.json()
    assert answer.headers["location"] == f"/v1/jobs/{job['id']}"
    assert answer.headers["retry-after"].isdigit()
    assert (job["state"], job["attempt"], job["progress"], job["verdict"]) == ("queued", 0, 0.0, None)
    spec = job["spec"]
    assert spec["target"] == {"sparsity": 0.25}
    assert len(spec["model"]["revision"]) == 40, "the commit, so that a moving branch changes nothing"
    assert spec["output"] == {"repo": f"{MODEL}-streamlined", "dtype": "bfloat16", "format": "auto"}
    assert spec["scoring"] == {"metric": "cosine", "adaptive": True, "sequences": 64, "sequence_length": 256}
    assert spec["calibration"] == {"dataset": "builtin:self", "column": "text"}
    assert spec["replacement"]["tokens"] == 131_072
    unset = [f"{section}.{name}" for section in ("scoring", "replacement", "benchmark", "output") for name, value in spec[section].items() if value is None]  # fmt: skip  # noqa: E501
    assert unset == []
    assert service.http.get(answer.headers["location"]).json() == job


def test_a_resolved_specification_asks_for_the_same_run(service: Service) -> None:
    first = service.submit(replacement={"kind": "ffn"}, labels={"a": "b"})
    again = service.http.post("/v1/jobs", json=first["spec"])
    assert again.status_code == 202
    assert again.json()["spec"] == first["spec"]


def test_rivals_of_the_benchmark_are_kept_with_their_commits(service: Service) -> None:
    spec = service.submit(benchmark={"rivals": [MODEL], "other_prompt_tokens": [32]})["spec"]
    assert spec["benchmark"]["rivals"] == [f"{MODEL}@{spec['model']['revision']}"]
    again = service.http.post("/v1/jobs", json=spec).json()
    assert again["spec"] == spec


def test_a_submitted_job_is_announced_after_it_can_be_seen(service: Service) -> None:
    job = service.submit()
    with service.sessions.begin() as session:
        row = repository.get(session, job["id"])
        assert row is not None
        assert row.published_count == 1
    messages = [path.read_text() for path in (service.parts.settings.broker_dir / "queue").iterdir()]
    bodies = [base64.b64decode(json.loads(message)["body"]).decode() for message in messages]
    assert sum(job["id"] in body for body in bodies) == 1


def test_a_broker_that_is_away_costs_no_job(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object, **__: object) -> None:
        raise OSError("the broker is away")

    monkeypatch.setattr(service.parts.celery, "send_task", away)
    job = service.submit()
    with service.sessions.begin() as session:
        assert list(queue.unannounced(session, republish_seconds=60)) == [job["id"]], "the reconciler's turn"


def test_an_etag_answers_304_until_the_job_changes(service: Service) -> None:
    job = service.submit()
    path = f"/v1/jobs/{job['id']}"
    etag = service.http.get(path).headers["etag"]
    assert etag.startswith('"'), "strong"
    unchanged = service.http.get(path, headers={"If-None-Match": etag})
    assert (unchanged.status_code, unchanged.content, unchanged.headers["etag"]) == (304, b"", etag)
    assert "retry-after" in unchanged.headers
    claim(service, job["id"])
    changed = service.http.get(path, headers={"If-None-Match": etag})
    assert (changed.status_code, changed.json()["state"]) == (200, "running")
    assert changed.headers["etag"] != etag


def test_waiting_ends_as_soon_as_the_job_changes(service: Service) -> None:
    job = service.submit()
    path = f"/v1/jobs/{job['id']}"
    etag = service.http.get(path).headers["etag"]
    timer = threading.Timer(0.5, claim, (service, job["id"]))
    began = time.monotonic()
    timer.start()
    answer = service.http.get(f"{path}?wait=30", headers={"If-None-Match": etag}, timeout=60)
    timer.join()
    assert answer.json()["state"] == "running"
    assert 0.4 < time.monotonic() - began < 25


def test_waiting_is_over_at_once_when_the_client_is_behind(service: Service) -> None:
    job = service.submit()
    etag = service.http.get(f"/v1/jobs/{job['id']}").headers["etag"]
    claim(service, job["id"])
    began = time.monotonic()
    answer = service.http.get(f"/v1/jobs/{job['id']}?wait=30", headers={"If-None-Match": etag}, timeout=60)
    assert answer.json()["state"] == "running"
    assert time.monotonic() - began < 25


def test_waiting_in_vain_answers_304_and_takes_no_longer_than_asked(service: Service) -> None:
    job = service.submit()
    etag = service.http.get(f"/v1/jobs/{job['id']}").headers["etag"]
    began = time.monotonic()
    answer = service.http.get(f"/v1/jobs/{job['id']}?wait=1", headers={"If-None-Match": etag})
    assert answer.status_code == 304
    assert 0.9 < time.monotonic() - began < 25
    assert problem_of(service.http.get(f"/v1/jobs/{job['id']}?wait=31"), 422)["parameter"] == "wait"


def test_a_final_job_is_not_waited_for(service: Service) -> None:
    job = service.submit()
    service.http.post(f"/v1/jobs/{job['id']}/cancel")
    began = time.monotonic()
    answer = service.http.get(f"/v1/jobs/{job['id']}?wait=30", timeout=60)
    assert answer.json()["state"] == "cancelled"
    assert "retry-after" not in answer.headers
    assert time.monotonic() - began < 25


def test_a_hundred_waiting_clients_hold_neither_threads_nor_connections(service: Service) -> None:
    job = service.submit()
    with (
        httpx.Client(base_url=service.url, timeout=60, limits=httpx.Limits(max_connections=200)) as client,
        ThreadPoolExecutor(100) as pool,
    ):
        waiting = [pool.submit(client.get, f"/v1/jobs/{job['id']}?wait=30") for _ in range(100)]
        wait_until(lambda: len(service.parts.watcher._waiters) == 100, what="all of them wait")
        assert service.http.get("/v1/jobs").status_code == 200
        assert not any(answer.done() for answer in waiting), "there is a thread and a connection left for others"
        claim(service, job["id"])
        assert {answer.result().json()["state"] for answer in waiting} == {"running"}


def test_cancelling_a_queued_job_is_at_once_and_final(service: Service) -> None:
    job = service.submit()
    answer = service.http.post(f"/v1/jobs/{job['id']}/cancel")
    assert (answer.status_code, answer.json()["state"]) == (202, "cancelled")
    assert answer.json()["finished_at"] is not None
    again = problem_of(service.http.post(f"/v1/jobs/{job['id']}/cancel"), 409)
    assert again["code"] == "job_is_final"
    assert again["detail"] == f"Job {job['id']} is cancelled already and can no longer be cancelled."


def test_cancelling_a_running_job_may_be_asked_for_twice(service: Service) -> None:
    job = service.submit()
    claim(service, job["id"])
    first, second = (service.http.post(f"/v1/jobs/{job['id']}/cancel") for _ in range(2))
    assert (first.status_code, second.status_code) == (202, 202)
    assert first.json()["cancel_requested"] is True
    assert first.headers["etag"] == second.headers["etag"], "the second one changed nothing"


def test_only_a_failed_or_cancelled_job_can_be_retried(service: Service) -> None:
    job = service.submit()
    path = f"/v1/jobs/{job['id']}"
    assert problem_of(service.http.post(f"{path}/retry"), 409)["code"] == "job_not_retryable"
    fail(service, job["id"], claim(service, job["id"]))
    failed = service.http.get(path).json()
    assert failed["error"] == {"code": "corrupt_model", "detail": "Bad.", "stage": "fetch"}
    answer = service.http.post(f"{path}/retry")
    assert (answer.status_code, answer.json()["state"], answer.json()["error"]) == (202, "queued", None)
    assert problem_of(service.http.post("/v1/jobs/none/retry"), 404)["code"] == "job_not_found"
    assert problem_of(service.http.post("/v1/jobs/none/cancel"), 404)["code"] == "job_not_found"


def test_pages_are_newest_first_and_stable_while_jobs_come_in(service: Service) -> None:
    ids = [service.submit(seed=number)["id"] for number in range(5)]
    # Two of one instant: the id decides, and none is lost between pages.
    with service.sessions.begin() as session:
        moment = repository.get(session, ids[2])
        assert moment is not None
        session.execute(update(JobRow).where(JobRow.id == ids[1]).values(created_at=moment.created_at))
    first = service.http.get("/v1/jobs?limit=2").json()
    assert [job["id"] for job in first["items"]] == [ids[4], ids[3]]
    service.submit(seed=99)
    seen, cursor = [job["id"] for job in first["items"]], first["next_cursor"]
    while cursor:
        page = service.http.get("/v1/jobs", params={"limit": 2, "cursor": cursor}).json()
        seen += [job["id"] for job in page["items"]]
        cursor = page["next_cursor"]
    assert sorted(seen) == sorted(ids), "each once, and not the one that came in"
    assert seen[-1] == ids[0]


def test_jobs_are_found_by_state_model_and_every_label(service: Service) -> None:
    both = service.submit(labels={"team": "a", "run": "1=2"})["id"]
    one = service.submit(labels={"team": "a"})["id"]
    service.http.post(f"/v1/jobs/{one}/cancel")

    def found(**query: object) -> list[str]:
        answer = service.http.get("/v1/jobs", params=query)  # type: ignore[arg-type]
        return [job["id"] for job in answer.json()["items"]]

    assert found(label="team=a") == [one, both]
    assert found(label=["team=a", "run=1=2"]) == [both]
    assert found(state="cancelled") == [one]
    assert found(model=MODEL) == [one, both]
    assert found(model="team/other") == []


def test_times_are_utc_and_in_order(service: Service) -> None:
    job = service.submit()
    token = claim(service, job["id"])
    advance(service, job["id"], token, 0.5)
    fail(service, job["id"], token)
    seen = service.http.get(f"/v1/jobs/{job['id']}").json()
    assert all(seen[name].endswith("Z") for name in ("created_at", "started_at", "finished_at"))
    # As moments: a fraction of a second that is zero is not written.
    moments = [datetime.fromisoformat(seen[name]) for name in ("created_at", "started_at", "finished_at")]
    assert moments == sorted(moments)


@pytest.mark.parametrize(
    "path",
    [
        *("/v1/jobs/a%00b", "/v1/jobs/a%00b/events", "/v1/jobs/a%00b/files/x", "/v1/datasets/a%00b", "/jobs/a%00b"),
        *("/v1/webhooks/a%00b/deliveries", "/webhooks/a%00b"),
    ],
)
def test_a_nul_in_a_path_names_nothing(service: Service, path: str) -> None:
    assert problem_of(service.http.get(path), 404)["code"] == "not_found"


@pytest.mark.parametrize(
    ("path", "parameter"),
    [
        ("/v1/jobs?model=a%00b", "model"),
        ("/v1/jobs?label=a%3Db%00", "label"),
        ("/v1/datasets?cursor=%00", "cursor"),
        ("/?model=%00", "model"),
        ("/new?from=%00", "from"),
        ("/compare?job=%00", "job"),
        ("/datasets?cursor=%00", "cursor"),
    ],
)
def test_a_nul_in_a_query_is_refused(service: Service, path: str, parameter: str) -> None:
    assert problem_of(service.http.get(path), 422)["parameter"] == parameter


@pytest.mark.parametrize("moment", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"])
def test_a_cursor_outside_the_calendar_is_refused(service: Service, moment: str) -> None:
    cursor = base64.urlsafe_b64encode(f"{moment} abc".encode()).decode().rstrip("=")
    assert problem_of(service.http.get("/v1/jobs", params={"cursor": cursor}), 422)["parameter"] == "cursor"
