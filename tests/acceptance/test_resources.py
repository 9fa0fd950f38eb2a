"""A disk that has become read-only, and a process without file handles: a typed refusal, and afterwards all is well."""

import socket
import subprocess
import sys
from contextlib import ExitStack, suppress
from pathlib import Path

import httpx
import psutil

from app.client import Streamline
from tests.ports import unused_port
from tests.service_process import REPOSITORY, ServiceProcesses, wait_until

TEXT = {"file": ("text.txt", b"Once upon a time there was a little girl.\n")}


def test_a_store_that_became_read_only_refuses_uploads_and_takes_them_again_when_it_is_mended(tmp_path: Path) -> None:
    """The store on a disk of its own in a mount namespace, where this test may mount without being root."""
    disk, port = tmp_path / "disk", unused_port()
    disk.mkdir()
    up = f"exec {sys.executable} -m app.cli api --port {port}"
    script = f"mount -t tmpfs tmpfs {disk} && mkdir {disk}/store && {sys.executable} -m app.cli migrate && {up}"
    environment = ServiceProcesses(tmp_path / "data", {"STREAMLINE_STORE_URL": f"file://{disk}/store"}).environment
    service = subprocess.Popen(["unshare", "-rm", "sh", "-c", script], cwd=REPOSITORY, env=environment)

    def remount(how: str) -> None:
        inside = ["nsenter", "-t", str(service.pid), "-U", "-m", "--preserve-credentials"]
        subprocess.run([*inside, "mount", "-o", f"remount,{how}", disk], check=True)

    try:
        with Streamline(f"http://127.0.0.1:{port}") as client:
            wait_until(client.ready, what="the service is up")
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as http:
            remount("ro")
            refused = http.post("/v1/datasets", files=TEXT)
            assert (refused.status_code, refused.json()["code"]) == (503, "storage_unavailable"), refused.text
            assert int(refused.headers["retry-after"]) > 0
            assert str(disk) not in refused.text, "no path leaks"
            assert http.get("/v1/datasets").json()["items"] == []
            assert http.get("/healthz").status_code == 200
            ready = http.get("/readyz")
            assert (ready.status_code, ready.json()["storage"]) == (503, "away")
            assert http.get("/api/models/demo/stories-24l").status_code == 200, "what is there can be read"
            remount("rw")
            assert http.post("/v1/datasets", files=TEXT).status_code == 201
            assert http.get("/readyz").status_code == 200
    finally:
        service.terminate()
        service.wait(timeout=600)


def test_a_service_out_of_file_handles_answers_again_once_it_has_some(tmp_path: Path) -> None:
    service = ServiceProcesses(tmp_path / "data", {})
    service.migrate()
    service.start_api()
    assert service.api is not None
    process = psutil.Process(service.api.pid)
    assert process.rlimit(psutil.RLIMIT_NOFILE)[0] == process.rlimit(psutil.RLIMIT_NOFILE)[1], "all that it may have"
    process.rlimit(psutil.RLIMIT_NOFILE, (80, 80))
    try:
        with ExitStack() as crowd:
            for _ in range(100):
                crowd.enter_context(socket.create_connection(("127.0.0.1", service.port), timeout=5))
            statuses = []
            for _ in range(2):
                with suppress(httpx.HTTPError):
                    statuses.append(httpx.post(f"{service.url}/v1/datasets", files=TEXT, timeout=2).status_code)
            assert not [status for status in statuses if status not in {201, 503}], statuses
        with service.client() as client:
            wait_until(client.ready, what="the service answers again")
        assert httpx.post(f"{service.url}/v1/datasets", files=TEXT, timeout=30).status_code in {200, 201}
    except BaseException:
        print(service.logs())
        raise
    finally:
        service.stop()
