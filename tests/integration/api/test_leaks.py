"""Whatever goes wrong, no answer and no line about a request tells a path of this machine, a key or a stack."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from sqlalchemy import text

from app.auth import keys
from app.auth.scopes import Scope
from app.logs import configure_logging
from tests.conftest import REPOSITORY
from tests.integration.api.conftest import JOB, MODEL, Service, jsonl, running, settings_for


@pytest.fixture
def _log() -> Iterator[None]:
    """The log as it is set up outside of tests."""
    before = structlog.get_config()
    structlog.reset_defaults()
    configure_logging()
    yield
    structlog.configure(**before)


@pytest.fixture
def watched(tmp_path: Path, stories_model: Path, _log: None) -> Iterator[Service]:
    """A service that may import from one directory, and a client with a key."""
    shutil.copytree(stories_model, tmp_path / "models" / "stories")
    settings = settings_for(tmp_path / "data", None).model_copy(
        update={"model_roots": (tmp_path / "models",), "task_data": tmp_path / "tasks"}
    )
    with running(settings) as service:
        with service.sessions.begin() as session:
            _, key = keys.create(session, "somebody", Scope.ADMIN)
        service.http.headers["authorization"] = f"Bearer {key}"
        yield service


def _of_bad_requests(service: Service, tmp_path: Path) -> Iterator[Any]:
    models = tmp_path / "models"
    post = service.http.post
    for path in ("stories", "nowhere", "../data", "odd"):
        (models / "odd").mkdir(exist_ok=True)
        yield post("/v1/imports", json={"path": f"given/{path}", "repo": "team/x"})
    (tmp_path / "given").symlink_to(models)
    for name, content in (("config.json", "{"), ("config.json", "{}"), ("model.safetensors", "no header")):
        (models / "odd" / name).write_text(content)
        yield post("/v1/imports", json={"path": "given/odd", "repo": "team/x"})
    (models / "odd" / "notes.txt").symlink_to(tmp_path)
    yield post("/v1/imports", json={"path": "given/odd", "repo": "team/x"})
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "piqa.jsonl").write_text("{}\n")
    yield post("/v1/jobs", json=JOB | {"evaluation": {"tasks": ["piqa"]}})
    yield post("/v1/jobs", json=JOB | {"evaluation": {"tasks": ["boolq"]}})
    yield post("/v1/jobs", content=b"{", headers={"Content-Type": "application/json"})
    yield post("/v1/datasets", files={"file": ("x.jsonl", b"\x80\x04]")})
    for path in (
        "/v1/jobs/x",
        "/v1/jobs/x/files/../../y",
        "/nowhere",
        f"/{MODEL}/resolve/main/nothing",
        "/v1/jobs?cursor=x",
    ):
        yield service.http.get(path)


def _of_a_broken_store(service: Service, tmp_path: Path) -> Iterator[Any]:
    blobs = tmp_path / "data" / "store" / "blobs"
    blobs.rename(blobs.with_name("elsewhere"))
    blobs.write_text("not a directory")
    yield service.http.post("/v1/datasets", files={"file": ("x.jsonl", jsonl("text"))})
    yield service.http.get(f"/{MODEL}/resolve/main/model.safetensors")
    yield service.http.get(f"/{MODEL}/resolve/main/config.json")
    yield service.http.post(
        f"/api/models/{MODEL}/commit/main",
        content=b'{"key":"header","value":{"summary":"x"}}\n{"key":"file","value":{"path":"a","content":"x"}}\n',
        headers={"Content-Type": "application/x-ndjson"},
    )
    yield service.http.get("/readyz")


def _of_a_broken_database(service: Service, _tmp_path: Path) -> Iterator[Any]:
    with service.sessions.begin() as session:
        session.execute(text("ALTER TABLE jobs RENAME TO lost"))
    yield service.http.get("/v1/jobs")
    yield service.http.post("/v1/jobs", json=JOB)
    yield service.http.get("/v1/jobs/0")


@pytest.mark.parametrize("failures", [_of_bad_requests, _of_a_broken_store, _of_a_broken_database])
def test_no_failure_tells_a_path_a_key_or_a_stack(
    failures: Any,
    watched: Service,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    answers = list(failures(watched, tmp_path))
    assert all(answer.status_code >= 400 for answer in answers), answers
    for answer in answers:
        told = answer.text + str(answer.headers)
        assert str(tmp_path) not in told, told
        assert str(REPOSITORY) not in told, told
        assert "Traceback" not in told, told
        assert not re.search(r"[/\w]+\.py\b|sqlite3|site-packages", told), told
    key = watched.http.headers["authorization"].removeprefix("Bearer ")
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines() if line.startswith("{")]
    # The last answer's line may come after it, and /readyz has none.
    assert len([line for line in lines if line["event"] == "request"]) >= len(answers) - 2
    for line in lines:
        said = json.dumps(line)
        assert key not in said
        assert str(REPOSITORY) not in said
        if line["event"] in {"request", "fault"}:
            assert str(tmp_path) not in said, said
