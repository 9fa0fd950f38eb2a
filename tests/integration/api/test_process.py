"""The API as a process: how it starts, how it stops, and what those who wait notice of the two: nothing."""

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest

from app.client import Streamline
from app.hub.bundled import BUNDLED_REPO
from tests.service_process import BUNDLED_JOB, ServiceProcesses, wait_until


@pytest.fixture
def service(tmp_path: Path) -> Iterator[ServiceProcesses]:
    service = ServiceProcesses(tmp_path, {})
    try:
        yield service
    finally:
        service.stop()


def test_who_waits_for_a_job_goes_on_waiting_over_a_restart_that_is_quick(service: ServiceProcesses) -> None:
    service.migrate()
    service.start_api()
    with Streamline(service.url) as client, ThreadPoolExecutor() as threads:
        job_id = client.submit(BUNDLED_JOB)["id"]
        waiting = threads.submit(client.wait, job_id)
        streaming = threads.submit(lambda: list(Streamline(service.url).stream(job_id)))
        poll = threads.submit(httpx.get, f"{service.url}/v1/jobs/{job_id}?wait=25", timeout=30)
        assert service.api is not None
        served = psutil.Process(service.api.pid)
        wait_until(lambda: _callers(served) >= 3, what="all three have called")
        time.sleep(1)
        service.api.send_signal(signal.SIGTERM)
        service.api.wait(timeout=60)
        assert poll.result().json()["state"] == "queued"
        time.sleep(0.5)
        assert not waiting.done()
        assert not streaming.done()
        service.start_api()
        client.cancel(job_id)
        assert waiting.result(timeout=120)["state"] == "cancelled"
        assert streaming.result(timeout=120)[-1]["data"]["state"] == "cancelled"
    assert [line for line in lines_of(service) if line["level"] != "info"] == [], "nothing was cut off"


def _callers(served: psutil.Process) -> int:
    """Connections to the process."""
    return sum(one.status == psutil.CONN_ESTABLISHED for one in served.net_connections())


def lines_of(service: ServiceProcesses) -> list[dict[str, str]]:
    """What the API has logged; every line is JSON."""
    return [json.loads(line) for line in (service.data_dir / "api.log").read_text().splitlines()]


def test_an_api_that_is_started_before_the_migration_says_so_once_and_goes_on_after_it(
    service: ServiceProcesses,
) -> None:
    service.environment["STREAMLINE_MAXX_ATTEMPTS"] = "5"

    def answers(path: str) -> int:
        try:
            return httpx.get(f"{service.url}{path}").status_code
        except httpx.TransportError:
            return 0

    service.start_api(ready=False)
    wait_until(lambda: answers("/healthz") == 200, what="the API answers")
    assert httpx.get(f"{service.url}/readyz").json()["database"] == "behind"
    time.sleep(1)  # what fails would fail several times
    service.migrate()
    wait_until(lambda: answers(f"/api/models/{BUNDLED_REPO}") == 200, what="the bundled model is there")
    assert answers("/readyz") == 200
    told = [(line["event"], line["detail"]) for line in lines_of(service) if line["level"] == "warning"]
    assert [event for event, _ in told] == ["unknown_setting", "database_behind"]
    assert "STREAMLINE_MAX_ATTEMPTS?" in told[0][1]
    assert "streamline migrate" in told[1][1]


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
