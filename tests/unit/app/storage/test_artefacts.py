import hashlib
import json
from pathlib import Path

import pytest

from app.storage.artefacts import ArtefactNotFound, LocalArtefactStore


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def store(root: Path) -> LocalArtefactStore:
    return LocalArtefactStore(root)


def files(directory: Path, **contents: str) -> dict[str, Path]:
    directory.mkdir(exist_ok=True)
    for name, text in contents.items():
        (directory / name).write_text(text)
    return {f"{name}.json": directory / name for name in contents}


def test_the_manifest_holds_the_size_and_sha256_of_each_file(
    store: LocalArtefactStore, root: Path, tmp_path: Path
) -> None:
    store.write("job1", files(tmp_path / "work", report="{}", scores="[1]"))
    manifest = json.loads((root / "jobs" / "job1" / "manifest.json").read_text())
    assert manifest == {
        "report.json": {"size": 2, "sha256": hashlib.sha256(b"{}").hexdigest()},
        "scores.json": {"size": 3, "sha256": hashlib.sha256(b"[1]").hexdigest()},
    }
    assert store.path("job1", "scores.json").read_bytes() == b"[1]"


def test_without_a_manifest_there_are_no_artefacts(store: LocalArtefactStore, root: Path, tmp_path: Path) -> None:
    store.write("job1", files(tmp_path / "work", report="{}"))
    (root / "jobs" / "job1" / "manifest.json").unlink()
    assert store.manifest("job1") == {}
    with pytest.raises(ArtefactNotFound):
        store.open("job1", "report.json")


def test_writing_again_replaces_the_set_as_a_whole(store: LocalArtefactStore, root: Path, tmp_path: Path) -> None:
    store.write("job1", files(tmp_path / "first", report="{}", scores="[1]"))
    store.write("job1", files(tmp_path / "second", report='{"new": 1}'))
    assert set(store.manifest("job1")) == {"report.json"}
    assert store.path("job1", "report.json").read_bytes() == b'{"new": 1}'
    assert sorted(path.name for path in (root / "jobs" / "job1").iterdir()) == ["manifest.json", "report.json"]
    assert list((root / "staging").iterdir()) == []
