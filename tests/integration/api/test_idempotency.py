"""An Idempotency-Key makes one job, however often and however fast its request is sent."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from sqlalchemy import select, update

from app.db.clock import db_now
from app.db.models import IdempotencyRow
from app.errors.resources import IdempotencyKeyInFlight
from app.jobs import idempotency
from app.jobs.spec.request import JobRequest
from tests.integration.api.conftest import JOB, Service, problem_of

KEY = {"Idempotency-Key": "ci-run-123"}


def send(service: Service, body: dict[str, Any], headers: dict[str, str] = KEY) -> httpx.Response:
    return service.http.post("/v1/jobs", json=body, headers=headers)


def jobs(service: Service) -> list[str]:
    return [job["id"] for job in service.http.get("/v1/jobs").json()["items"]]


def digest(body: dict[str, Any]) -> str:
    return JobRequest.model_validate(body).digest()


def test_fifty_parallel_submits_with_one_key_make_one_job(service: Service) -> None:
    with (
        httpx.Client(base_url=service.url, timeout=60, limits=httpx.Limits(max_connections=50)) as client,
        ThreadPoolExecutor(50) as pool,
    ):
        answers = list(pool.map(lambda _: client.post("/v1/jobs", json=JOB, headers=KEY), range(50)))
    accepted = [answer for answer in answers if answer.status_code == 202]
    for answer in answers:
        if answer.status_code != 202:
            assert problem_of(answer, 409)["code"] == "idempotency_key_in_flight"
            assert int(answer.headers["retry-after"]) >= 1
    assert len({answer.json()["id"] for answer in accepted}) == 1
    assert len(jobs(service)) == 1


def test_the_same_request_again_gets_the_same_answer(service: Service) -> None:
    first, second = send(service, JOB), send(service, JOB)
    assert (first.status_code, second.status_code) == (202, 202)
    assert first.json() == second.json()
    assert first.headers["location"] == second.headers["location"]


def test_two_spellings_of_one_request_are_the_same_request(service: Service) -> None:
    first = send(service, JOB | {"labels": {"a": "1", "b": "2"}})
    second = send(service, {"labels": {"b": "2", "a": "1"}, "seed": 0, "gates": {}} | JOB)
    assert first.json()["id"] == second.json()["id"]


def test_another_body_under_a_used_key_is_refused(service: Service) -> None:
    send(service, JOB)
    problem = problem_of(send(service, JOB | {"seed": 1}), 422)
    assert (problem["code"], problem["parameter"]) == ("idempotency_key_reused", "Idempotency-Key")
    assert len(jobs(service)) == 1


def test_a_refused_request_frees_its_key(service: Service) -> None:
    problem_of(send(service, JOB | {"model": {"repo": "team/none"}}), 422)
    assert send(service, JOB).status_code == 202


def test_a_request_under_way_holds_its_key(service: Service) -> None:
    with service.sessions.begin() as session:
        idempotency.reserve(session, "", KEY["Idempotency-Key"], digest(JOB))
    answer = send(service, JOB)
    assert problem_of(answer, 409)["code"] == "idempotency_key_in_flight"
    assert answer.headers["retry-after"] == "1"
    assert jobs(service) == []


def test_a_key_whose_request_died_is_free_after_a_minute_by_the_databases_clock(service: Service) -> None:
    with service.sessions.begin() as session:
        dead = idempotency.reserve(session, "", KEY["Idempotency-Key"], "of a request that died")
        assert isinstance(dead, idempotency.Reservation)
        left = session.scalar(
            select(IdempotencyRow.expires_at > db_now(50)).where(IdempotencyRow.expires_at <= db_now(60))
        )
        assert left, "a minute"
    with service.sessions.begin() as session:
        session.execute(update(IdempotencyRow).values(expires_at=db_now(-0.001)))
    answer = send(service, JOB)
    assert answer.status_code == 202
    with service.sessions() as session, pytest.raises(IdempotencyKeyInFlight):
        idempotency.bind(session, dead, answer.json()["id"])  # the dead one comes back too late
    with service.sessions.begin() as session:
        idempotency.free(session, dead)
    assert send(service, JOB).json()["id"] == answer.json()["id"], "the late one could not free it either"


def test_requests_without_a_key_are_all_different(service: Service) -> None:
    assert send(service, JOB, {}).json()["id"] != send(service, JOB, {}).json()["id"]


@pytest.mark.parametrize("key", ["", "x" * 256, "tab\there", "ä"])
def test_a_key_that_cannot_be_one_is_refused(shared_service: Service, key: str) -> None:
    answer = shared_service.http.post("/v1/jobs", json=JOB, headers={b"Idempotency-Key": key.encode()})
    assert problem_of(answer, 400)["parameter"] == "Idempotency-Key"
