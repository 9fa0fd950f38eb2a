"""Whatever is killed, at whatever stage: the job ends with the same checkpoint, and nothing finished runs twice."""

import os
import signal
import subprocess
from pathlib import Path

import pytest

from app.client import Streamline
from app.dispatch.queue import enqueue, make_celery
from app.settings import Settings
from tests.acceptance.backends import SERVERS, backend
from tests.acceptance.barriers import LAST_OUTPUT, Barriers
from tests.service_process import (
    BUNDLED_JOB,
    QUICK_JOB,
    ServiceProcesses,
    Stages,
    running_service,
    wait_until,
)


def finished_twice(client: Streamline, job_id: str) -> list[str]:
    """Stages that ran to their end more than once."""
    stages = Stages(client, job_id)
    stages.look()
    return sorted({stage for stage in stages.finished if stages.finished.count(stage) > 1})


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The checkpoint's hash of a run that nobody disturbs: the same on every backend."""
    with running_service(tmp_path_factory.mktemp("undisturbed"), {}) as service, service.client() as client:
        job = client.wait(client.submit(QUICK_JOB)["id"], timeout=600)
    assert job["state"] == "succeeded", job["error"]
    digest: str = job["result"]["checkpoint_sha256"]
    return digest


def kill_engine(service: ServiceProcesses, job_id: str) -> None:
    engines = service.engines(job_id)
    assert engines
    for process in engines:
        os.kill(process.pid, signal.SIGKILL)


def kill_worker(service: ServiceProcesses, job_id: str) -> None:
    worker = service.workers[-1]
    worker.kill()
    worker.wait()
    wait_until(lambda: not service.engines(job_id), what="an engine ends with its worker")
    service.start_worker()


def kill_api(service: ServiceProcesses) -> None:
    assert service.api is not None
    service.api.kill()
    service.api.wait()
    service.start_api()


@pytest.mark.slow
def test_whatever_is_killed_at_whatever_stage_changes_nothing_in_the_end(
    environment: dict[str, str], tmp_path: Path, undisturbed: str
) -> None:
    """The API at every stage; the engine or its worker, by turns, at the even ones over one backend and at the odd ones
    over the other."""
    barriers, odd = Barriers(tmp_path / "barriers"), not environment
    # A dead worker's job is free when its lease has run out.
    held = environment | barriers.environment | {"STREAMLINE_LEASE_SECONDS": "6"}
    with running_service(tmp_path / "data", held) as service, service.client() as client:
        job_id = client.submit(QUICK_JOB)["id"]
        for number, stage in enumerate(LAST_OUTPUT):
            barriers.wait(stage)
            kill_api(service)
            # Publishing is the worker's own work: the engine is gone by then.
            if number % 2 == odd:
                if stage != "publish" and number % 4 > 1:
                    kill_engine(service, job_id)
                else:
                    kill_worker(service, job_id)
            barriers.open(stage)
        job = client.wait(job_id, timeout=600)
        assert job["state"] == "succeeded", job["error"]
        assert job["result"]["checkpoint_sha256"] == undisturbed
        # Every kill of what computes costs one attempt, and no more.
        assert job["attempt"] == 1 + len(range(odd, len(LAST_OUTPUT), 2))
        assert finished_twice(client, job_id) == []


@backend(SERVERS)
def test_a_message_delivered_fifty_times_makes_one_attempt(service: ServiceProcesses) -> None:
    settings = Settings(
        data_dir=Path(service.environment["STREAMLINE_DATA_DIR"]),
        broker_url=service.environment.get("STREAMLINE_BROKER_URL"),
    )
    celery = make_celery(settings)
    for _ in range(3):
        service.start_worker()
    with service.client() as client:
        job_id = client.submit(QUICK_JOB | {"replacement": {"kind": "none", "tokens": 2048}})["id"]
        for _ in range(50):
            enqueue(celery, job_id)
        job = client.wait(job_id, timeout=600)
        assert (job["state"], job["attempt"]) == ("succeeded", 1)


def test_a_job_whose_message_was_lost_runs_all_the_same(environment: dict[str, str], tmp_path: Path) -> None:
    with running_service(tmp_path / "data", environment, workers=0) as service, service.client() as client:
        job_id = client.submit(QUICK_JOB | {"replacement": {"kind": "none", "tokens": 2048}})["id"]
        if url := environment.get("STREAMLINE_BROKER_URL"):
            import redis

            with redis.Redis.from_url(url) as broker:
                broker.flushdb()
        else:
            for message in (tmp_path / "data" / "broker" / "queue").iterdir():
                message.unlink()
        service.start_worker()
        wait_until(lambda: service.engines(job_id), what="the job has an engine")


@backend(SERVERS)
def test_a_stopping_worker_gives_its_job_back_and_another_goes_on(service: ServiceProcesses) -> None:
    with service.client() as client:
        job_id = client.submit(QUICK_JOB)["id"]
        stages = Stages(client, job_id)
        wait_until(lambda: stages.look() == "train", what="training begins")
        service.workers[-1].send_signal(signal.SIGTERM)
        service.workers[-1].wait(timeout=120)
        assert client.job(job_id)["state"] == "queued"
        assert not service.engines(job_id)
        service.start_worker()
        job = client.wait(job_id, timeout=600)
        assert (job["state"], job["attempt"]) == ("succeeded", 2)
        assert finished_twice(client, job_id) == []


def test_up_stops_cleanly_and_goes_on_at_the_next_start(tmp_path: Path) -> None:
    service = ServiceProcesses(tmp_path / "data", {})

    def start_up() -> "subprocess.Popen[bytes]":
        up = service._spawn("up", "app.cli", "up", "--port", str(service.port), "--data", str(service.data_dir))
        with service.client() as client:
            wait_until(client.ready, what="the service is up")
        return up

    up = start_up()
    try:
        with service.client() as client:
            job_id = client.submit(BUNDLED_JOB)["id"]
            stages = Stages(client, job_id)
            wait_until(lambda: stages.look() == "train", what="training begins")
        up.send_signal(signal.SIGINT)
        assert up.wait(timeout=120) == 0
        assert not service.engines(job_id)
        assert not service.engines(str(service.port)), "no process is left behind"
        up = start_up()
        with service.client() as client:
            job = client.wait(job_id, timeout=600)
            assert job["state"] == "succeeded"
            assert finished_twice(client, job_id) == []
    finally:
        up.send_signal(signal.SIGTERM)
        up.wait(timeout=120)
