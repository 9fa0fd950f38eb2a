"""What both stores promise, over a directory and over a bucket of a real S3 server."""

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from app.storage.artefacts import ArtefactNotFound, ArtefactStore
from app.storage.blobs import BlobNotFound, BlobStore, SourceChanged
from app.storage.integrity import check
from tests.conftest import REPOSITORY
from tests.unit.app.storage.conftest import Place

BIG = os.urandom((16 << 20) + 1)  # two parts of a multipart upload, the last one of a byte


def nothing_named() -> Mapping[str, int]:
    return {}


# --- blobs ---------------------------------------------------------------------------------------------------------


def test_a_blob_is_named_by_its_sha256_and_by_gits_name(store: BlobStore, tmp_path: Path) -> None:
    source = tmp_path / "file"
    source.write_bytes(b"hello\n")
    blob = store.put_file(source)
    assert blob.sha256 == hashlib.sha256(b"hello\n").hexdigest()
    assert blob.git_oid == "ce013625030ba8dba906f756967f9e9ca394464a"  # git hash-object
    assert blob.size == store.size(blob.sha256) == 6
    assert blob.sha256 in store
    assert store.put_bytes(b"hello\n") == blob


@pytest.mark.parametrize("content", [b"", b"x", BIG], ids=["empty", "one byte", "several parts"])
def test_what_is_put_is_what_is_read_in_every_way(store: BlobStore, tmp_path: Path, content: bytes) -> None:
    source = tmp_path / "file"
    source.write_bytes(content)
    sha256 = store.put_file(source).sha256
    size = len(content)
    with store.open(sha256) as file:
        assert file.read() == content
        assert file.seek(0, 2) == size
        file.seek(size // 2)
        assert file.read(10) == content[size // 2 : size // 2 + 10]
    assert b"".join(store.read(sha256, 0, size)) == content
    assert b"".join(store.read(sha256, size // 3, size // 2)) == content[size // 3 : size // 2]
    assert max((len(piece) for piece in store.read(sha256, 0, size)), default=0) <= 8 << 20
    assert store.local_path(sha256).read_bytes() == content
    store.place(sha256, tmp_path / "placed")
    assert (tmp_path / "placed").read_bytes() == content
    assert (tmp_path / "placed").stat().st_mode & 0o222 == 0
    assert list(store.blobs()) == [(sha256, size)]


def test_a_later_change_of_the_source_does_not_reach_the_store(store: BlobStore, tmp_path: Path) -> None:
    source = tmp_path / "file"
    source.write_bytes(b"before")
    blob = store.put_file(source)
    source.write_bytes(b"after!")
    assert store.local_path(blob.sha256).read_bytes() == b"before"


def test_the_same_bytes_from_many_threads_are_kept_once(store: BlobStore, place: Place, tmp_path: Path) -> None:
    source = tmp_path / "file"
    source.write_bytes(os.urandom(1 << 20))
    with ThreadPoolExecutor(4) as threads:
        blobs = list(threads.map(store.put_file, [source] * 8))
    assert len(set(blobs)) == 1
    assert len(place.names()) == 1


def test_a_missing_blob_is_a_typed_error_in_every_way(store: BlobStore, tmp_path: Path) -> None:
    missing = "0" * 64
    ways: list[Callable[[], object]] = [
        lambda: store.open(missing),
        lambda: store.read(missing, 0, 1),
        lambda: store.size(missing),
        lambda: store.local_path(missing),
        lambda: store.direct_path(missing),
        lambda: store.place(missing, tmp_path / "x"),
    ]
    for way in ways:
        with pytest.raises(BlobNotFound):
            way()
    assert missing not in store
    store.remove(missing)


@pytest.mark.parametrize("key", ["", "..", "../../etc/passwd", "A" * 64, "0" * 63, "0" * 64 + "\n"])
def test_a_key_that_is_no_sha256_never_becomes_a_path(store: BlobStore, key: str) -> None:
    for way in (store.local_path, store.remove, store.size, store.set_aside):
        with pytest.raises(ValueError, match="sha256"):
            way(key)


def test_a_file_that_is_still_growing_is_refused(
    store: BlobStore, place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "log"
    source.write_bytes(b"x" * 4_000_000)
    made = hashlib.sha1

    def after_growth(head: bytes, **options: bool) -> object:
        # Git's name begins with the length: what it is made for has been measured, and nothing has been read.
        with source.open("ab") as log:
            log.write(b"x" * 10_000)
        return made(head, **options)

    monkeypatch.setattr(hashlib, "sha1", after_growth)
    with pytest.raises(SourceChanged):
        store.put_file(source)
    assert source.stat().st_size > 4_000_000
    assert place.names() == []


def test_a_removed_blob_is_gone_and_can_be_put_again(store: BlobStore) -> None:
    blob = store.put_bytes(b"x")
    store.remove(blob.sha256)
    assert blob.sha256 not in store
    assert store.put_bytes(b"x") == blob
    assert blob.sha256 in store


# --- artefacts -----------------------------------------------------------------------------------------------------


def written(directory: Path, **contents: str) -> dict[str, Path]:
    directory.mkdir(exist_ok=True)
    for name, text in contents.items():
        (directory / name).write_text(text)
    return {f"{name}.json": directory / name for name in contents}


def test_the_manifest_holds_the_size_and_sha256_of_each_file(artefacts: ArtefactStore, tmp_path: Path) -> None:
    assert artefacts.manifest("job1") == {}
    entries = artefacts.write("job1", written(tmp_path / "work", report="{}", scores="[1]"))
    assert artefacts.manifest("job1") == entries
    assert (entries["report.json"].size, entries["report.json"].sha256) == (2, hashlib.sha256(b"{}").hexdigest())
    assert artefacts.path("job1", "scores.json").read_bytes() == b"[1]"
    with artefacts.open("job1", "scores.json") as file:
        assert file.read() == b"[1]"
    assert list(artefacts.jobs()) == ["job1"]


def test_files_may_lie_in_directories(artefacts: ArtefactStore, tmp_path: Path) -> None:
    artefacts.write("job1", {"plots/deep/a.svg": written(tmp_path / "work", a="x")["a.json"]})
    assert artefacts.path("job1", "plots/deep/a.svg").read_text() == "x"


def test_writing_again_replaces_the_set_as_a_whole(artefacts: ArtefactStore, place: Place, tmp_path: Path) -> None:
    artefacts.write("job1", written(tmp_path / "first", report="{}", scores="[1]"))
    artefacts.write("job1", written(tmp_path / "second", report='{"new": 1}'))
    assert set(artefacts.manifest("job1")) == {"report.json"}
    assert artefacts.path("job1", "report.json").read_bytes() == b'{"new": 1}'
    assert len(place.names()) == 2, "the file and the manifest"


def test_a_refused_second_write_leaves_the_first_set(artefacts: ArtefactStore, tmp_path: Path) -> None:
    first = artefacts.write("job1", written(tmp_path / "work", report="{}"))
    with pytest.raises(ValueError, match="relative path"):
        artefacts.write("job1", {"../report.json": tmp_path / "work" / "report"})
    assert artefacts.manifest("job1") == first, "names are checked before anything is touched"


@pytest.mark.parametrize(
    "name", ["", "/etc/passwd", "../x", "a/../../x", "a//b", "./a", "manifest.json", "a\0b", "a\\b"]
)
def test_a_name_that_could_leave_the_directory_is_refused(artefacts: ArtefactStore, tmp_path: Path, name: str) -> None:
    files = written(tmp_path / "work", report="{}")
    artefacts.write("job1", files)
    for read in (artefacts.open, artefacts.path):
        with pytest.raises(ArtefactNotFound):
            read("job1", name)
    with pytest.raises(ValueError, match="relative path"):
        artefacts.write("job1", {name: files["report.json"]})


def test_a_job_id_that_could_leave_the_directory_is_refused(artefacts: ArtefactStore) -> None:
    with pytest.raises(ValueError, match="job id"):
        artefacts.manifest("../job1")


# --- kills ---------------------------------------------------------------------------------------------------------


class Killed:
    """Runs one write after another in processes of their own, each killed one step later than the one before."""

    def __init__(self, place: Place, operation: str, *files: Path) -> None:
        command = [sys.executable, "-m", "tests.unit.app.storage.killed_writer"]
        arguments = [place.kind, place.url, place.endpoint, str(place.local), operation, *map(str, files)]
        self._process = subprocess.Popen(
            [*command, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY
        )

    def at(self, step: int) -> bool:
        """Whether the write was killed, which it is in front of its step of this number, counted from 0."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{step}\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline().strip()
        assert answer in {"killed", "done"}, answer
        return answer == "killed"

    def close(self) -> None:
        self._process.communicate()


def test_a_put_that_is_killed_at_any_step_shows_nothing_and_can_be_done_again(
    place: Place, store: BlobStore, tmp_path: Path
) -> None:
    source = tmp_path / "file"
    source.write_bytes(BIG)
    sha256 = hashlib.sha256(BIG).hexdigest()
    killed = Killed(place, "put", source)
    step = seen = 0
    while killed.at(step):
        if sha256 in store:  # killed behind the last step that matters
            seen += 1
            store.remove(sha256)
        store.collect_abandoned()
        assert place.names() == [], f"step {step}"
        assert check(store, place.artefacts(), nothing_named).clean
        step += 1
    killed.close()
    assert step >= 5
    assert seen < step
    assert list(store.blobs()) == [(sha256, len(BIG))]
    assert store.collect_abandoned() == 0
    assert check(store, place.artefacts(), lambda: {sha256: len(BIG)}).clean


def test_artefacts_whose_write_is_killed_at_any_step_are_the_old_set_or_the_new_one_or_none(
    place: Place, store: BlobStore, artefacts: ArtefactStore, tmp_path: Path
) -> None:
    old, new = written(tmp_path / "old", report="old", scores="1"), written(tmp_path / "new", report="new")
    old_set = artefacts.write("job1", old)
    killed = Killed(place, "artefacts", new["report.json"])
    step, states = 0, set()
    while killed.at(step):
        store.collect_abandoned()
        manifest = artefacts.manifest("job1")
        assert check(store, artefacts, nothing_named).clean, f"step {step}"
        states.add("none" if not manifest else "old" if manifest == old_set else "new")
        artefacts.write("job1", old)
        step += 1
    killed.close()
    assert step > 3
    assert "old" in states
    assert set(artefacts.manifest("job1")) == {"report.json"}
    assert artefacts.path("job1", "report.json").read_text() == "new"


# --- integrity -----------------------------------------------------------------------------------------------------


def test_the_check_tells_missing_corrupt_and_unreferenced_apart(
    place: Place, store: BlobStore, artefacts: ArtefactStore, tmp_path: Path
) -> None:
    good, bad, loose = (store.put_bytes(content) for content in (b"good", b"bad", b"loose"))
    artefacts.write("job1", written(tmp_path / "work", report="{}"))
    named = {good.sha256: 4, bad.sha256: 3, "0" * 64: 1}
    place.damage(bad.sha256, b"BAD")
    found = check(store, artefacts, lambda: named)
    assert (found.missing, found.corrupt, found.unreferenced) == (["0" * 64], [bad.sha256], [loose.sha256])
    assert (found.blobs, found.artefacts, found.clean) == (3, 1, False)
    assert found.set_aside == []


def test_a_damaged_blob_is_moved_aside_and_putting_it_again_mends(place: Place, store: BlobStore) -> None:
    blob = store.put_bytes(b"precious")
    place.damage(blob.sha256, b"scratched")
    found = check(store, place.artefacts(), lambda: {blob.sha256: 8}, repair=True)
    assert len(found.set_aside) == 1
    assert place.names() == [f"aside/{blob.sha256}"], "moved, never deleted"
    store.put_bytes(b"precious")
    assert check(store, place.artefacts(), lambda: {blob.sha256: 8}).clean
