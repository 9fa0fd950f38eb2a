"""Importing over HTTP: the service's own API, with problem documents."""

import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from app.db.migrate import migrate
from app.main import create_app
from app.settings import Settings
from app.storage.blobs import SourceChanged
from app.storage.local import LocalBlobStore
from app.storage.staging import staged_file


@pytest.fixture
def models(tmp_path: Path, stories_model: Path) -> Path:
    """A directory that may be imported from, with one model in it."""
    shutil.copytree(stories_model, tmp_path / "models" / "stories")
    return tmp_path / "models"


@pytest.fixture
def http(tmp_path: Path, models: Path) -> Iterator[TestClient]:
    settings = Settings(data_dir=tmp_path / "data", model_roots=(models,))
    settings.data_dir.mkdir()
    migrate(settings.database)
    with TestClient(create_app(settings), base_url="http://127.0.0.1") as client:
        yield client


def test_an_imported_model_is_in_the_hub_and_again_changes_nothing(http: TestClient, models: Path) -> None:
    wanted = {"path": str(models / "stories"), "repo": "team/stories", "private": True}
    first = http.post("/v1/imports", json=wanted)
    assert first.status_code == 201
    assert first.json()["created"] is True
    again = http.post("/v1/imports", json=wanted)
    assert again.status_code == 200
    assert again.json() == first.json() | {"created": False}
    info = http.get("/api/models/team/stories").json()
    assert info["sha"] == first.json()["revision"]
    assert info["private"] is True
    assert first.json()["files"] == len(info["siblings"])


@pytest.mark.parametrize(
    ("change", "status", "code", "pointer", "words"),
    [
        ({"repo": "../etc"}, 422, "bad_repo_name", "/repo", "Allowed: `namespace/name`"),
        ({"repo": "api/x"}, 422, "bad_repo_name", "/repo", "reserved"),
        ({"path": "/etc"}, 422, "directory_not_allowed", "/path", "STREAMLINE_MODEL_ROOTS"),
        ({"path": "{models}/../store"}, 422, "directory_not_allowed", "/path", "STREAMLINE_MODEL_ROOTS"),
        ({"path": "{models}/missing"}, 422, "unreadable_model", "/path", "not a directory"),
        ({"path": "{models}"}, 422, "unreadable_model", "/path", "no config.json"),
        ({"path": "a\0b"}, 422, "unreadable_model", "/path", "NUL"),
        ({"path": ""}, 422, "out_of_range", "/path", "path"),
        ({"branch": "main"}, 422, "unknown_field", "/branch", "Known here: path, repo, private"),
        ({"repo": None}, 422, "wrong_type", "/repo", "repo"),
    ],
)
def test_bad_requests_name_the_field_and_what_is_allowed(  # one column of the table each
    http: TestClient, models: Path, change: dict[str, str | None], status: int, code: str, pointer: str, words: str
) -> None:
    wanted = {"path": str(models / "stories"), "repo": "team/stories"}
    changed = {name: value and value.replace("{models}", str(models)) for name, value in change.items()}
    answer = http.post("/v1/imports", json=wanted | changed)
    problem = answer.json()
    assert (answer.status_code, problem["code"], problem["pointer"]) == (status, code, pointer)
    assert words in problem["detail"]
    assert [repo["id"] for repo in http.get("/api/models").json()] == ["demo/stories-24l"], (
        "only what came with the service"
    )


def test_a_model_without_safetensors_is_refused_with_the_way_out(http: TestClient, models: Path) -> None:
    (models / "stories" / "model.safetensors").rename(models / "stories" / "pytorch_model.bin")
    answer = http.post("/v1/imports", json={"path": str(models / "stories"), "repo": "team/stories"})
    assert (answer.status_code, answer.json()["code"]) == (422, "no_safetensors")
    assert "safe_serialization" in answer.json()["detail"]


def test_a_truncated_weights_file_is_named(http: TestClient, models: Path) -> None:
    weights = models / "stories" / "model.safetensors"
    weights.chmod(0o644)
    os.truncate(weights, 5_000_000)
    answer = http.post("/v1/imports", json={"path": str(models / "stories"), "repo": "team/stories"})
    assert (answer.status_code, answer.json()["code"]) == (422, "unreadable_model")
    assert "model.safetensors" in answer.json()["detail"]


def test_a_model_that_the_disk_cannot_take_leaves_nothing(http: TestClient, models: Path, tmp_path: Path) -> None:
    huge = models / "stories" / "notes.txt"
    huge.touch()
    os.truncate(huge, shutil.disk_usage(tmp_path).free + (1 << 34))  # sparse: it takes no room itself
    answer = http.post("/v1/imports", json={"path": str(models / "stories"), "repo": "team/stories"})
    assert (answer.status_code, answer.json()["code"]) == (507, "storage_full")
    assert "are needed" in answer.json()["detail"]
    assert [repo["id"] for repo in http.get("/api/models").json()] == ["demo/stories-24l"], (
        "only what came with the service"
    )


def test_text_that_is_no_unicode_is_refused_and_not_a_fault(http: TestClient, models: Path) -> None:
    for body in (b'{"path": "/a\\ud800", "repo": "team/x"}', b'{"path": "/a", "repo": "team/\\ud800"}'):
        answer = http.post("/v1/imports", content=body, headers={"Content-Type": "application/json"})
        assert answer.status_code == 422


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (SourceChanged(Path("model.safetensors")), "changed while it was read"),
        (FileNotFoundError(errno.ENOENT, "No such file", "model.safetensors"), "went away"),
        (OSError(errno.EIO, "Input/output error", "model.safetensors"), "Input/output error"),
    ],
)
def test_a_directory_that_fails_while_it_is_read_is_a_problem(
    http: TestClient, models: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, words: str
) -> None:
    def fail(_store: LocalBlobStore, _path: Path) -> None:
        raise error

    monkeypatch.setattr(LocalBlobStore, "put_file", fail)
    answer = http.post("/v1/imports", json={"path": str(models / "stories"), "repo": "team/stories"})
    assert (answer.status_code, answer.json()["code"], answer.json()["pointer"]) == (422, "unreadable_model", "/path")
    assert "model.safetensors" in answer.json()["detail"]
    assert words in answer.json()["detail"]


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_file_that_the_store_has_lost_is_said_in_the_hubs_form(http: TestClient, tmp_path: Path, method: str) -> None:
    for blob in (tmp_path / "data" / "store" / "blobs").rglob("*"):
        if blob.is_file():
            blob.unlink()
    answer = http.request(method, "/demo/stories-24l/resolve/main/config.json")
    assert (answer.status_code, answer.headers["x-error-code"]) == (410, "ContentLost")
    assert answer.headers["cache-control"] == "no-store"
    assert "has lost 'config.json' of demo/stories-24l" in answer.headers["x-error-message"]


def test_a_start_removes_what_killed_writers_left_and_nothing_of_living_ones(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path / "data")
    settings.data_dir.mkdir()
    migrate(settings.database)
    app = create_app(settings)
    staging = settings.store_dir / "staging"
    (staging / "left").write_bytes(b"half")
    with staged_file(staging, needed=1) as (living, _), TestClient(app):
        assert list(staging.iterdir()) == [living]
