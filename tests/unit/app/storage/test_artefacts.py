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


def test_files_may_lie_in_directories(store: LocalArtefactStore, tmp_path: Path) -> None:
    source = tmp_path / "a"
    source.write_text("x")
    store.write("job1", {"plots/deep/a.svg": source})
    assert store.path("job1", "plots/deep/a.svg").read_text() == "x"


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


def test_a_refused_second_write_leaves_the_first_set(store: LocalArtefactStore, tmp_path: Path) -> None:
    store.write("job1", files(tmp_path / "work", report="{}"))
    with pytest.raises(ValueError, match="relative path"):
        store.write("job1", {"../report.json": tmp_path / "work" / "report"})
    assert set(store.manifest("job1")) == {"report.json"}, "names are checked before anything is touched"


@pytest.mark.parametrize(
    "name", ["", "/etc/passwd", "../x", "a/../../x", "a//b", "./a", "manifest.json", "a\0b", "a\\b"]
)
def test_a_name_that_could_leave_the_directory_is_refused(store: LocalArtefactStore, tmp_path: Path, name: str) -> None:
    store.write("job1", files(tmp_path / "work", report="{}"))
    with pytest.raises(ArtefactNotFound):
        store.open("job1", name)
    with pytest.raises(ValueError, match="relative path"):
        store.write("job1", {name: tmp_path / "work" / "report"})


def test_a_job_id_that_could_leave_the_directory_is_refused(store: LocalArtefactStore) -> None:
    with pytest.raises(ValueError, match="job id"):
        store.manifest("../job1")
