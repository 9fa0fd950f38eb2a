import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from app.storage.blobs import BlobCorrupt
from app.storage.cache import KEEP_SECONDS, BlobCache, place


class Source:
    """The remote side: counts the bytes that it is asked for, and can break off."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.sha256 = hashlib.sha256(content).hexdigest()
        self.asked: list[tuple[int, int]] = []
        self.breaks_at: int | None = None

    def read(self, start: int, end: int) -> Iterator[bytes]:
        self.asked.append((start, end))
        for at in range(start, end, 1000):
            if self.breaks_at is not None and at >= self.breaks_at:
                raise ConnectionError("broken off")
            yield self.content[at : min(at + 1000, end)]


def fetch(cache: BlobCache, source: Source) -> Path:
    return cache.fetch(source.sha256, len(source.content), source.read)


@pytest.fixture
def cache(tmp_path: Path) -> BlobCache:
    return BlobCache(tmp_path / "cache", budget_bytes=25_000)


def long_unused(path: Path) -> None:
    os.utime(path, times=(0, path.stat().st_mtime - 2 * KEEP_SECONDS))


def test_a_blob_is_downloaded_once_however_many_ask_at_once(cache: BlobCache, tmp_path: Path) -> None:
    source = Source(os.urandom(10_000))
    with ThreadPoolExecutor(8) as threads:
        paths = set(threads.map(lambda _: fetch(cache, source), range(16)))
    (path,) = paths
    assert source.asked == [(0, 10_000)]
    assert path.read_bytes() == source.content
    assert path.stat().st_mode & 0o222 == 0
    assert list((tmp_path / "cache" / "partial").iterdir()) == []


def test_asking_for_a_blob_again_does_not_make_its_other_names_look_changed(cache: BlobCache, tmp_path: Path) -> None:
    source = Source(os.urandom(100))
    named = tmp_path / "model.safetensors"
    place(fetch(cache, source), named)
    before = named.stat().st_mtime_ns
    place(fetch(cache, source), tmp_path / "again")
    assert named.stat().st_mtime_ns == before


def test_a_download_that_broke_off_goes_on_where_it_stopped(cache: BlobCache) -> None:
    source = Source(os.urandom(10_000))
    source.breaks_at = 7000
    with pytest.raises(ConnectionError):
        fetch(cache, source)
    source.breaks_at = None
    assert fetch(cache, source).read_bytes() == source.content
    assert source.asked == [(0, 10_000), (7000, 10_000)]


def test_what_a_power_cut_left_damaged_is_downloaded_from_the_beginning(cache: BlobCache, tmp_path: Path) -> None:
    source = Source(os.urandom(10_000))
    (tmp_path / "cache" / "partial" / source.sha256).write_bytes(b"\0" * 4000)
    assert fetch(cache, source).read_bytes() == source.content
    assert source.asked == [(4000, 10_000), (0, 10_000)]


def test_bytes_with_another_hash_are_refused_and_not_kept(cache: BlobCache, tmp_path: Path) -> None:
    source = Source(b"x" * 5000)
    source.content = b"y" * 5000
    with pytest.raises(BlobCorrupt, match="fsck"):
        fetch(cache, source)
    assert list((tmp_path / "cache" / "sha256").iterdir()) == []


def test_beyond_the_budget_the_longest_unused_goes_first(cache: BlobCache) -> None:
    sources = [Source(os.urandom(10_000)) for _ in range(3)]
    first, second = (fetch(cache, source) for source in sources[:2])
    long_unused(first)
    long_unused(second)
    assert fetch(cache, sources[0]) == first, "asked for again: the second is the longest unused now"
    third = fetch(cache, sources[2])
    assert (first.exists(), second.exists(), third.exists()) == (True, False, True)


def test_what_was_just_asked_for_stays_whatever_the_budget(cache: BlobCache) -> None:
    paths = [fetch(cache, Source(os.urandom(10_000))) for _ in range(4)]
    assert all(path.exists() for path in paths)


def test_a_placed_file_outlives_its_place_in_the_cache(cache: BlobCache, tmp_path: Path) -> None:
    source = Source(os.urandom(20_000))
    cached = fetch(cache, source)
    place(cached, tmp_path / "model.safetensors")
    long_unused(cached)
    fetch(cache, Source(os.urandom(20_000)))
    assert not cached.exists()
    assert (tmp_path / "model.safetensors").read_bytes() == source.content
