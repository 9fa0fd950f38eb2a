import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.storage.blobs import BlobStore, SourceChanged, StorageFull
from app.storage.local import LocalBlobStore
from app.storage.staging import free_bytes, staged_file


@pytest.fixture
def store(tmp_path: Path) -> LocalBlobStore:
    return LocalBlobStore(tmp_path / "store")


def stored_files(store_root: Path) -> list[Path]:
    return [path for path in store_root.rglob("*") if path.is_file()]


def test_the_local_store_keeps_the_protocol(store: LocalBlobStore) -> None:
    as_protocol: BlobStore = store
    assert as_protocol.put_bytes(b"x").size == 1


@given(content=st.binary(max_size=4096))
def test_what_is_put_is_what_is_read(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    store = LocalBlobStore(tmp_path_factory.getbasetemp() / "any-content")
    with store.open(store.put_bytes(content).sha256) as file:
        assert file.read() == content


def test_blobs_are_read_only_files(store: LocalBlobStore) -> None:
    path = store.local_path(store.put_bytes(b"x").sha256)
    assert path.stat().st_mode & 0o777 == 0o444


def test_a_file_larger_than_the_free_space_is_refused_before_the_first_byte(
    store: LocalBlobStore, tmp_path: Path
) -> None:
    source = tmp_path / "sparse"
    source.touch()
    needed = free_bytes(tmp_path) + (1 << 30)
    os.truncate(source, needed)
    with pytest.raises(StorageFull) as caught:
        store.put_file(source)
    assert caught.value.needed == needed
    assert caught.value.available is not None
    assert 0 < caught.value.available < needed
    assert f"{needed:,}" in str(caught.value)
    assert stored_files(tmp_path / "store") == []


_FILL_A_SMALL_DISK = """
import os, sys
from pathlib import Path
from app.storage.blobs import StorageFull
from app.storage.staging import staged_file
directory = Path(sys.argv[1])
try:
    with staged_file(directory, needed=1000) as (_, file):
        for _ in range(64):
            file.write(os.urandom(1 << 16))
except StorageFull as error:
    print(error.needed, error.available, len(list(directory.iterdir())))
"""


def test_a_disk_that_fills_up_on_the_way_leaves_nothing(tmp_path: Path) -> None:
    mount = f"mount -t tmpfs -o size=1m tmpfs {tmp_path} && exec {sys.executable} -c '{_FILL_A_SMALL_DISK}' {tmp_path}"
    if subprocess.run(["unshare", "-rm", "mount", "-t", "tmpfs", "tmpfs", tmp_path], check=False).returncode:
        pytest.skip("this machine does not let us mount a small disk")
    done = subprocess.run(["unshare", "-rm", "sh", "-c", mount], capture_output=True, text=True, check=True)
    needed, available, left = map(int, done.stdout.split())
    assert needed == 1000
    assert 900_000 < available <= 1 << 20, "our own half-written file was still there"
    assert left == 0


def test_a_file_that_is_still_growing_is_refused(store: LocalBlobStore, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"  # its length is 0 when asked, and then bytes come
    os.mkfifo(fifo)
    with ThreadPoolExecutor(1) as thread:
        thread.submit(fifo.write_bytes, b"more than none")
        with pytest.raises(SourceChanged):
            store.put_file(fifo)
    assert stored_files(tmp_path / "store") == []


_WRITE_AND_HANG = """
import sys, time
from pathlib import Path
from app.storage.staging import staged_file
with staged_file(Path(sys.argv[1]), needed=0) as (_, file):
    file.write(b"half"); file.flush()
    print("written", flush=True)
    time.sleep(60)
"""


def test_collecting_removes_what_a_killed_writer_left_and_spares_a_living_one(
    store: LocalBlobStore, tmp_path: Path
) -> None:
    staging = tmp_path / "store" / "staging"
    with subprocess.Popen([sys.executable, "-c", _WRITE_AND_HANG, staging], stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        assert store.collect_abandoned() == 0
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        with staged_file(staging, needed=0) as (living, _):
            assert store.collect_abandoned() == 1
            assert living.exists()
