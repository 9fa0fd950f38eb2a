"""The real application in a real uvicorn on a loopback port, over SQLite and Postgres. No worker: jobs stay queued."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog
import uvicorn
from pydantic import SecretStr
from sqlalchemy import delete
from sqlalchemy.orm import Session, sessionmaker

from app.api.deps import Services
from app.db.migrate import migrate
from app.db.models import DatasetRow, IdempotencyRow, JobRow
from app.hub.importing import import_directory
from app.main import create_app
from app.settings import Settings
from tests.conftest import postgres_database

MODEL = "demo/stories-24l"
JOB: dict[str, Any] = {"model": {"repo": MODEL}, "target": {"sparsity": 0.25}}
MAX_DATASET_BYTES = 1 << 20

# Request lines of a server thread would be written into whichever test runs by then.
structlog.configure(wrapper_class=structlog.make_filtering_bound_logger("critical"))

BACKENDS = [pytest.param("sqlite"), pytest.param("postgres", marks=pytest.mark.postgres)]


@dataclass(frozen=True)
class Service:
    """A running service, a client of it, and its parts for setting a scene."""

    http: httpx.Client
    parts: Services
    url: str

    @property
    def sessions(self) -> sessionmaker[Session]:
        return self.parts.sessions

    def submit(self, **changes: Any) -> dict[str, Any]:
        answer = self.http.post("/v1/jobs", json=JOB | changes)
        assert answer.status_code == 202, answer.text
        job: dict[str, Any] = answer.json()
        return job

    def refused(self, body: Any, *, path: str = "/v1/jobs", status: int = 422) -> dict[str, Any]:
        answer = self.http.post(path, json=body)
        return problem_of(answer, status)

    def upload(self, content: bytes, filename: str = "text.jsonl", **form: str) -> dict[str, Any]:
        answer = self.http.post("/v1/datasets", files={"file": (filename, content)}, data=form)
        assert answer.status_code in {200, 201}, answer.text
        dataset: dict[str, Any] = answer.json()
        return dataset


def problem_of(answer: httpx.Response, status: int) -> dict[str, Any]:
    """The problem document of an answer, after the checks that hold for every one."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = answer.json()
    assert problem["status"] == status
    assert problem["type"] == f"urn:streamline:problem:{problem['code']}"
    assert problem["detail"].endswith((".", "!", "?")), "a sentence"
    assert problem["request_id"] == answer.headers["x-request-id"]
    return problem


@contextmanager
def running(settings: Settings) -> Iterator[Service]:
    """Serve a migrated application in a thread of this process."""
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    migrate(settings.database)
    app = create_app(settings)
    server = uvicorn.Server(
        uvicorn.Config(app, port=0, log_config=None, access_log=False, ws="none", timeout_graceful_shutdown=1)
    )
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started and thread.is_alive():
        time.sleep(0.01)
    url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    try:
        with httpx.Client(base_url=url, timeout=30) as http:
            yield Service(http, app.state.services, url)
    finally:
        server.should_exit = True
        thread.join()


def settings_for(data_dir: Path, database_url: str | None) -> Settings:
    return Settings(
        data_dir=data_dir,
        database_url=SecretStr(database_url) if database_url else None,
        max_dataset_bytes=MAX_DATASET_BYTES,
        reconcile_seconds=60,
    )


@pytest.fixture(scope="module", params=BACKENDS)
def running_service(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service over each database, for the tests of one module; the module's SETTINGS are its own."""
    with ExitStack() as stack:
        url = stack.enter_context(postgres_database()) if request.param == "postgres" else None
        settings = settings_for(tmp_path_factory.mktemp("service") / "data", url)
        changes = getattr(request.module, "SETTINGS", {})
        yield stack.enter_context(running(settings.model_copy(update=changes)))


@pytest.fixture
def service(running_service: Service) -> Service:
    """A service without jobs and data sets."""
    with running_service.sessions.begin() as session:
        for table in (IdempotencyRow, JobRow, DatasetRow):
            session.execute(delete(table))
    return running_service


@pytest.fixture(scope="module")
def shared_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One service over SQLite for tests that change nothing that others would see."""
    with running(settings_for(tmp_path_factory.mktemp("service") / "data", None)) as found:
        yield found


def import_variant(service: Service, source: Path, into: Path, repo: str, **config: Any) -> None:
    """Import the model in `source` under another name, with some fields of its config changed."""
    into.mkdir(parents=True)
    for path in source.iterdir():
        if path.name != "README.md":
            (into / path.name).write_bytes(path.read_bytes())
    changed = json.loads((into / "config.json").read_text()) | config
    (into / "config.json").write_text(json.dumps(changed))
    with service.sessions.begin() as session:
        import_directory(session, service.parts.blobs, into, repo)


def jsonl(*texts: str, column: str = "text") -> bytes:
    return b"".join(json.dumps({column: text}).encode() + b"\n" for text in texts)
