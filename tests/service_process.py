"""The service as real processes, for tests that send it requests, signals and kills."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil

from app.client import Streamline
from tests.ports import unused_port
from tests.shallow_model import write_shallow_model

REPOSITORY = Path(__file__).resolve().parents[1]

SHALLOW_MODEL = "tests/stories-6l"
# Small numbers everywhere: the same stages as a real job in a few seconds on two cores.
QUICK_JOB: dict[str, Any] = {
    "model": {"repo": SHALLOW_MODEL},
    "target": {"layers": 2},
    "scoring": {"sequences": 8, "sequence_length": 32},
    "replacement": {"kind": "layer", "tokens": 2048, "epochs": 1},
    "benchmark": {"batch_sizes": [1], "prompt_tokens": 16, "new_tokens": 8},
}

BUNDLED_JOB: dict[str, Any] = QUICK_JOB | {"model": {"repo": "demo/stories-24l"}, "target": {"layers": 6}}
"""The same for what is told of the bundled model, or where it is the only one."""


def wait_until(true: Callable[[], Any], *, seconds: float = 300, what: str) -> Any:
    """Poll until `true()` is; fails with `what` after the time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if value := true():
            return value
        time.sleep(0.02)
    raise AssertionError(f"not within {seconds} s: {what}")


def told_of(url: str, job_id: str) -> str:
    """Everything that a client is told of a job: itself, its events, and the files that it leaves behind."""
    job = f"{url}/v1/jobs/{job_id}"
    files = httpx.get(f"{job}/files").json()
    texts = [file["path"] for file in files.get("items", ()) if not file["path"].endswith(".safetensors")]
    parts = [httpx.get(job), httpx.get(f"{job}/events", headers={"Accept": "application/json"})]
    return "\n".join(part.text for part in [*parts, *(httpx.get(f"{job}/files/{path}") for path in texts)])


class ServiceProcesses:
    """An API and workers, each a process of its own, over one data directory, database and broker."""

    def __init__(self, data_dir: Path, environment: dict[str, str]) -> None:
        self.data_dir = data_dir
        self.environment = (
            {key: value for key, value in os.environ.items() if not key.startswith("STREAMLINE_")}
            | {
                "STREAMLINE_DATA_DIR": str(data_dir),
                "STREAMLINE_HEARTBEAT_SECONDS": "0.5",
                # Long enough that no stall of a busy machine passes for a worker's death; a test of what follows a
                # death sets a shorter one.
                "STREAMLINE_LEASE_SECONDS": "30",
                "STREAMLINE_RECONCILE_SECONDS": "0.3",
                "STREAMLINE_REPUBLISH_SECONDS": "2",
                "PYTHONPATH": str(REPOSITORY),
            }
            | environment
        )
        roots = [environment.get("STREAMLINE_MODEL_ROOTS", ""), str(data_dir)]
        self.environment["STREAMLINE_MODEL_ROOTS"] = os.pathsep.join(filter(None, roots))
        self.port = unused_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.api: subprocess.Popen[bytes] | None = None
        self.workers: list[subprocess.Popen[bytes]] = []
        data_dir.mkdir(parents=True, exist_ok=True)

    def _spawn(self, name: str, *arguments: str, **more: str) -> subprocess.Popen[bytes]:
        with (self.data_dir / f"{name}.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", *arguments],
                env=self.environment | more,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                cwd=self.data_dir,
            )

    def migrate(self) -> None:
        subprocess.run(
            [sys.executable, "-m", "app.cli", "migrate"], env=self.environment, check=True, cwd=self.data_dir
        )

    def start_api(self, *, ready: bool = True) -> None:
        self.api = self._spawn("api", "app.cli", "api", "--port", str(self.port))
        if not ready:
            return
        with self.client() as client:
            wait_until(client.ready, what="the API is ready")

    def import_shallow_model(self) -> None:
        """Bring in what QUICK_JOB compresses; it may be there already."""
        directory = self.data_dir / "stories-6l"
        if not directory.exists():
            write_shallow_model(directory)
            with self.client() as client:
                client.import_model(directory, SHALLOW_MODEL)

    def start_worker(self, **more: str) -> subprocess.Popen[bytes]:
        """A new worker; `more` is added to its environment."""
        worker = self._spawn(f"worker-{len(self.workers)}", "worker", **more)
        self.workers.append(worker)
        return worker

    def client(self) -> Streamline:
        return Streamline(self.url)

    def engines(self, job_id: str) -> list[psutil.Process]:
        """The job's engine processes that are alive (its verifying child among them)."""
        found = []
        for process in psutil.process_iter(["cmdline", "status"]):
            line = " ".join(process.info["cmdline"] or [])
            if job_id in line and "python" in line and process.info["status"] != psutil.STATUS_ZOMBIE:
                found.append(process)
        return found

    def stop(self) -> None:
        for process in [*self.workers, *([self.api] if self.api else [])]:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in [*self.workers, *([self.api] if self.api else [])]:
            try:
                process.wait(timeout=60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def logs(self) -> str:
        return "\n".join(f"--- {path.name}\n{path.read_text()[-3000:]}" for path in sorted(self.data_dir.glob("*.log")))


@contextmanager
def running_service(data_dir: Path, environment: dict[str, str], *, workers: int = 1) -> Iterator[ServiceProcesses]:
    """A migrated service with an API and workers; everything is stopped at the end, and the logs shown on failure."""
    service = ServiceProcesses(data_dir, environment)
    try:
        service.migrate()
        service.start_api()
        service.import_shallow_model()
        for _ in range(workers):
            service.start_worker()
        yield service
    except BaseException:
        print(service.logs())
        raise
    finally:
        service.stop()


class Stages:
    """What a job's events say about its stages; asks for new events only, so that looking often costs little."""

    def __init__(self, client: Streamline, job_id: str) -> None:
        self._client, self._job_id, self._seen = client, job_id, 0
        self._started: str | None = None
        self.state = ""
        self.finished: list[str] = []
        """Stages that ran to their end (not those that were found done and skipped), in order."""
        self._done: set[str] = set()

    def look(self) -> str | None:
        """The stage that is being run now, or None."""
        for event in self._client.events(self._job_id, after=self._seen):
            self._seen, data = event["id"], event["data"]
            match event["event"]:
                case "state":
                    self.state = data["state"]
                case "stage_started":
                    self._started = data["stage"]
                case "stage_finished":
                    self._started = None
                    self._done.add(data["stage"])
                    if not data["skipped"]:
                        self.finished.append(data["stage"])
        return None if self._started in self._done else self._started
