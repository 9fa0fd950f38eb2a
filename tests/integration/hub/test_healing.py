"""A damaged blob that fsck has moved aside is sent again by whoever uploads the same file, over disk and bucket."""

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from app.cli.storage import check_integrity
from app.settings import Settings
from app.storage.local import LocalBlobStore
from app.storage.s3 import S3BlobStore, _key
from tests.integration.api.conftest import Service, running
from tests.s3_server import make_bucket

REPO = "team/precious"
UPLOAD = f"""
import sys
import uuid
from huggingface_hub import HfApi
api = HfApi()
api.create_repo("{REPO}", exist_ok=True)
api.upload_folder(repo_id="{REPO}", folder_path=sys.argv[1])
"""


@pytest.fixture(params=["disk", "bucket"])
def service(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, s3_endpoint: str
) -> Iterator[Service]:
    if request.param == "bucket":
        monkeypatch.setenv("STREAMLINE_STORE_URL", make_bucket(s3_endpoint, f"heal-{uuid.uuid4().hex}"))
        monkeypatch.setenv("STREAMLINE_S3_ENDPOINT_URL", s3_endpoint)
    with running(Settings(data_dir=tmp_path / "data")) as found:
        yield found


def damage(service: Service, sha256: str) -> None:
    store = service.parts.blobs
    if isinstance(store, S3BlobStore):
        store._bucket.put(_key(sha256), b"scratched")
    else:
        assert isinstance(store, LocalBlobStore)
        path = store.local_path(sha256)
        path.chmod(0o644)
        path.write_bytes(b"scratched")


def upload(service: Service, folder: Path, home: Path, **environment: str) -> None:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "STREAMLINE_"))}
    own = {"HF_ENDPOINT": service.url, "HF_HOME": str(home), "HF_HUB_DISABLE_TELEMETRY": "1"} | environment
    done = subprocess.run(
        [sys.executable, "-c", UPLOAD, str(folder)], env=kept | own, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def fetched(service: Service, path: str) -> httpx.Response:
    return httpx.get(f"{service.url}/{REPO}/resolve/main/{path}", follow_redirects=True)


@pytest.mark.parametrize("environment", [{}, {"HF_HUB_DISABLE_XET": "1"}], ids=["xet", "lfs"])
def test_uploading_the_same_file_again_heals_what_was_damaged(
    service: Service, tmp_path: Path, environment: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    contents = {"weights.safetensors": os.urandom(6 << 20), "config.json": b'{"small": true}'}
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    upload(service, folder, tmp_path / "home", **environment)
    listed = httpx.get(f"{service.url}/api/models/{REPO}", params={"blobs": "true"}).json()
    sha256s = [file["lfs"]["sha256"] for file in listed["siblings"] if "lfs" in file]
    small = service.parts.blobs.put_bytes(contents["config.json"]).sha256
    for sha256 in (*sha256s, small):
        damage(service, sha256)
    data = service.parts.settings.data_dir
    capsys.readouterr()
    assert check_integrity(data, repair=False, as_json=False) == 1
    assert f"corrupt  {small}  {REPO}@{listed['sha']}:config.json" in capsys.readouterr().out
    assert check_integrity(data, repair=True, as_json=True) == 1
    named_by = json.loads(capsys.readouterr().out)["named_by"]
    assert {place for sha256 in sha256s for place in named_by[sha256]} == {
        f"{REPO}@{listed['sha']}:weights.safetensors"
    }
    for name in contents:
        assert fetched(service, name).status_code == 410, "it is named, and it is not there"
    upload(service, folder, tmp_path / "home", **environment)
    for name, content in contents.items():
        assert fetched(service, name).content == content
    assert check_integrity(data, repair=False, as_json=True) == 0
    after = httpx.get(f"{service.url}/api/models/{REPO}").json()["sha"]
    assert after == listed["sha"], "the content is the same, and so is the commit"
