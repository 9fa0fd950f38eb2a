"""Cancel and retry, with a real engine at work."""

import time

from tests.acceptance.backends import SERVERS, backend
from tests.service_process import QUICK_JOB, ServiceProcesses, Stages, wait_until


@backend(SERVERS, "shared_service")
def test_a_cancel_reaches_the_engine_within_two_heartbeats_and_a_retry_goes_on(
    shared_service: ServiceProcesses,
) -> None:
    heartbeat = float(shared_service.environment["STREAMLINE_HEARTBEAT_SECONDS"])
    with shared_service.client() as client:
        job_id = client.submit(QUICK_JOB)["id"]
        stages = Stages(client, job_id)
        wait_until(lambda: stages.look() == "train", what="training begins")
        began = time.monotonic()
        client.cancel(job_id)
        wait_until(lambda: not shared_service.engines(job_id), seconds=15, what="the engine is gone")
        took = time.monotonic() - began
        job = client.wait(job_id, timeout=15)
        assert job["state"] == "cancelled"
        scratch = shared_service.data_dir / "work" / job_id / "tmp"
        wait_until(lambda: not scratch.exists(), seconds=5, what="what the killed stage had on disk is gone")
        # The beat that learns of it, and what the engine's processes need to leave.
        assert took < 2 * heartbeat + 1.0
        assert client.retry(job_id)["state"] == "queued"
        job = client.wait(job_id, timeout=600)
        assert job["state"] == "succeeded"
        stages.look()
        assert len(stages.finished) == len(set(stages.finished)), "what had been finished did not run again"


def test_a_queued_job_is_cancelled_at_once(shared_service: ServiceProcesses) -> None:
    with shared_service.client() as client:
        first = client.submit(QUICK_JOB)["id"]
        second = client.submit(QUICK_JOB | {"seed": 1})["id"]
        assert client.cancel(second)["state"] == "cancelled"
        client.cancel(first)
        assert client.wait(first, timeout=30)["state"] == "cancelled"
