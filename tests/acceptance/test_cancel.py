"""Cancel and retry, with a real engine at work."""

import time
from collections.abc import Iterator

import pytest

from tests.acceptance.backends import BACKENDS, SERVERS, backend, environment_of
from tests.acceptance.barriers import Barriers
from tests.service_process import QUICK_JOB, ServiceProcesses, Stages, running_service, wait_until

# Between two beats there is time for everything that a busy machine takes to end processes.
HEARTBEAT_SECONDS = 4.0


@pytest.fixture(scope="module")
def barriers(tmp_path_factory: pytest.TempPathFactory) -> Barriers:
    """Training goes on until a test lets it end: no machine is so fast that there is nothing left to cancel."""
    return Barriers(tmp_path_factory.mktemp("held") / "barriers", only="train")


@pytest.fixture(scope="module", params=BACKENDS)
def shared_service(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, barriers: Barriers
) -> Iterator[ServiceProcesses]:
    """An API and one worker whose heart beats slowly."""
    slow = {"STREAMLINE_HEARTBEAT_SECONDS": f"{HEARTBEAT_SECONDS}"} | barriers.environment
    data = tmp_path_factory.mktemp("service") / "data"
    with environment_of(request.param) as found, running_service(data, found | slow) as processes:
        yield processes


def test_a_queued_job_is_cancelled_at_once(shared_service: ServiceProcesses) -> None:
    with shared_service.client() as client:
        first = client.submit(QUICK_JOB)["id"]
        second = client.submit(QUICK_JOB | {"seed": 1})["id"]
        assert client.cancel(second)["state"] == "cancelled"
        client.cancel(first)
        assert client.wait(first, timeout=600)["state"] == "cancelled"


@backend(SERVERS, "shared_service")
def test_a_cancel_reaches_the_engine_within_two_heartbeats_and_a_retry_goes_on(
    shared_service: ServiceProcesses, barriers: Barriers
) -> None:
    with shared_service.client() as client:
        job_id = client.submit(QUICK_JOB)["id"]
        stages = Stages(client, job_id)
        wait_until(lambda: stages.look() == "train", what="training begins")
        began = time.monotonic()
        client.cancel(job_id)
        wait_until(lambda: not shared_service.engines(job_id), what="the engine is gone")
        took = time.monotonic() - began
        job = client.wait(job_id, timeout=600)
        assert job["state"] == "cancelled"
        scratch = shared_service.data_dir / "work" / job_id / "tmp"
        wait_until(lambda: not scratch.exists(), what="what the killed stage had on disk is gone")
        # The beat that learns of it comes within one heartbeat; the other is for what the processes need to leave.
        assert took < 2 * HEARTBEAT_SECONDS
        barriers.open("train")
        assert client.retry(job_id)["state"] == "queued"
        job = client.wait(job_id, timeout=600)
        barriers.close("train")
        assert job["state"] == "succeeded"
        stages.look()
        assert len(stages.finished) == len(set(stages.finished)), "what had been finished did not run again"
