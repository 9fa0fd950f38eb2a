"""What waits for which memory: on the job, in the list of workers and in the metrics."""

from sqlalchemy import delete

from app.core.device_memory import card_bytes
from app.db.models import WorkerRow
from app.jobs import workers
from tests.integration.api.conftest import JOB, Service
from tests.integration.api.test_plans import LLAMA_2_7B


def test_a_job_tells_the_memory_that_it_needs_and_the_workers_what_they_have(service: Service) -> None:
    job = service.submit()
    assert 10**9 < job["required_memory_bytes"] < card_bytes(8)
    planned = service.http.post("/v1/plans", json=JOB).json()["estimated"]
    assert planned["gpu_memory_bytes"] == job["required_memory_bytes"]
    with service.sessions.begin() as session:
        session.execute(delete(WorkerRow))
    assert service.http.get("/v1/workers").json() == {"items": []}
    with service.sessions.begin() as session:
        for name, memory in (("a:1", 24), ("b:1", 80), ("c:1", 24)):
            workers.seen(session, name, card_bytes(memory))
    answer = service.http.get("/v1/workers")
    assert answer.json()["items"] == [
        {"memory_bytes": card_bytes(80), "count": 1},
        {"memory_bytes": card_bytes(24), "count": 2},
    ]
    assert "a:1" not in answer.text, "not the machines' names"
    assert 'streamline_jobs_queued{memory="8g"} 1.0' in service.http.get("/metrics").text


def test_a_plan_of_a_config_says_which_card_it_would_take(service: Service) -> None:
    body = {"model": {"config": LLAMA_2_7B}, "target": {"sparsity": 0.25}}
    need = service.http.post("/v1/plans", json=body).json()["estimated"]["gpu_memory_bytes"]
    assert card_bytes(16) < need < card_bytes(24)
