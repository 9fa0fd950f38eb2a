"""What those who wait notice of a service that is stopped and started again: nothing."""

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from app.client import Streamline
from tests.service_process import BUNDLED_JOB, ServiceProcesses


@pytest.fixture
def service(tmp_path: Path) -> Iterator[ServiceProcesses]:
    service = ServiceProcesses(tmp_path, {})
    try:
        service.migrate()
        service.start_api()
        yield service
    finally:
        service.stop()


def test_who_waits_for_a_job_goes_on_waiting_over_a_restart_that_is_quick(service: ServiceProcesses) -> None:
    with Streamline(service.url) as client, ThreadPoolExecutor() as threads:
        job_id = client.submit(BUNDLED_JOB)["id"]
        waiting = threads.submit(client.wait, job_id)
        streaming = threads.submit(lambda: list(Streamline(service.url).stream(job_id)))
        poll = threads.submit(httpx.get, f"{service.url}/v1/jobs/{job_id}?wait=25", timeout=30)
        time.sleep(1)
        assert service.api is not None
        service.api.send_signal(signal.SIGTERM)
        service.api.wait(timeout=5)
        assert poll.result().json()["state"] == "queued"
        time.sleep(0.5)
        assert not waiting.done()
        assert not streaming.done()
        service.start_api()
        client.cancel(job_id)
        assert waiting.result(timeout=30)["state"] == "cancelled"
        assert streaming.result(timeout=30)[-1]["data"]["state"] == "cancelled"


def test_a_taken_port_is_refused_in_a_sentence(tmp_path: Path) -> None:
    service = ServiceProcesses(tmp_path, {})
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", service.port))
        taken.listen()
        refused = subprocess.run(
            [sys.executable, "-m", "app.cli", "api", "--port", str(service.port)],
            check=False,
            env=service.environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
    assert refused.returncode == 64
    assert refused.stderr == (
        f"streamline: Port {service.port} of 127.0.0.1 is taken; choose another with --port (0 takes a free one).\n"
    )
