"""Large files on their way from the upstream hub: one download for many askers, resumed where it broke off.

What has come lies in a directory that all processes of the service share. A file's lock makes one of them download it;
the others wait for the lock, or follow the growing file and send its bytes on. Its last megabyte is sent when the whole
has the right sha256: nobody receives a damaged file to its end. Then the blob goes into the store.
"""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import structlog

from app.hub.errors import UpstreamDamaged, UpstreamUnavailable
from app.hub.upstream.remote import RemoteHub
from app.storage.blobs import BlobCorrupt, BlobStore
from app.storage.cache import BlobCache
from app.storage.staging import locked_file

HELD_BACK_BYTES = 1 << 20
_READ_BYTES = 1 << 20
_AT_ONCE = 4
"""Connections for downloads, of one process."""
_RETRIES_AT_FIRST, _RETRIES = 1, 4
"""Of a connection that gives nothing at all, and of one that has given something."""
_FIRST_PAUSE_SECONDS = 0.25
_AWHILE_SECONDS = 3.0
"""How long a reader waits for the first bytes, so that what goes wrong at once becomes an answer of its own."""

_PAUSE_SECONDS = 0.05

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Source:
    """Where the bytes of a blob are to be had."""

    repo: str
    commit: str
    path: str
    sha256: str
    size: int
    """Bytes."""


class Download:
    """A file that this process fetches, or waits for another one to fetch."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.done: Future[None] = Future()
        """Ends when the store has the blob, or with what went wrong."""
        self.stopped = threading.Event()
        """Set by who wants it no longer; what has come is kept."""


class Downloads:
    """The downloads of this process."""

    def __init__(self, hub: RemoteHub, store: BlobStore, directory: Path) -> None:
        """Fetch into `directory` (made if it is missing, shared by all processes), then put into the store."""
        self._hub = hub
        self._store = store
        self._cache = BlobCache(directory / "files", budget_bytes=1 << 62)
        self._locks = directory / "locks"
        self._locks.mkdir(parents=True, exist_ok=True)
        self._connections = threading.BoundedSemaphore(_AT_ONCE)
        self._running: dict[str, Download] = {}
        self._guard = threading.Lock()

    def start(self, source: Source) -> Download:
        """Fetch the file in a thread; one that is on its way already is that one."""
        with self._guard:
            running = self._running.get(source.sha256)
            if running is None or running.stopped.is_set():
                running = self._running[source.sha256] = Download(source)
                threading.Thread(target=self._run, args=(running,), name="fetch", daemon=True).start()
            return running

    def received(self, source: Source) -> int:
        """Bytes of the file that have come so far."""
        followed = self._cache.follow(source.sha256)
        if followed is None:
            return 0
        with followed.file:
            return min(followed.look()[0], source.size)

    def read(self, source: Source, start: int, end: int) -> Iterator[bytes]:
        """Bytes `start` to `end` as they come; an empty piece says that the next ones are not here yet.

        Raises:
            UpstreamError, StorageError: at once where it goes wrong in the first seconds, else while reading.
        """
        pieces = self._follow(self.start(source), start, end)
        first: bytes | None = b""
        patience = time.monotonic() + _AWHILE_SECONDS
        while first == b"" and time.monotonic() < patience:
            first = next(pieces, None)
            if first == b"":
                time.sleep(_PAUSE_SECONDS)
        return _after(first or b"", pieces)

    def _follow(self, download: Download, start: int, end: int) -> Iterator[bytes]:
        sha256 = download.source.sha256
        followed = None
        try:
            while start < end:
                followed = followed or self._cache.follow(sha256)
                size, complete, given_up = followed.look() if followed else (0, False, False)
                ready = min(end, size if complete else size - HELD_BACK_BYTES)
                if followed and start < ready:
                    followed.file.seek(start)
                    piece = followed.file.read(min(_READ_BYTES, ready - start))
                    start += len(piece)
                    yield piece
                elif given_up:
                    raise UpstreamDamaged(download.source.repo, download.source.path)
                elif download.done.done():
                    download.done.result()
                    yield from self._store.read(sha256, start, end)
                    return
                else:
                    yield b""
        finally:
            if followed:
                followed.file.close()

    def _run(self, download: Download) -> None:
        source = download.source
        failure: Exception | None = None
        try:
            self._fetch(download)
        except BlobCorrupt:
            failure = UpstreamDamaged(source.repo, source.path)
        except Exception as error:
            failure = error
        with self._guard:
            if self._running.get(source.sha256) is download:
                del self._running[source.sha256]
        if failure is None:
            download.done.set_result(None)
        else:
            log.warning("fetch_failed", repo=source.repo, path=source.path, error=type(failure).__name__)
            download.done.set_exception(failure)

    def _fetch(self, download: Download) -> None:
        source = download.source
        lock = self._locks / source.sha256
        with locked_file(lock):  # one process at a time, also while it puts
            if source.sha256 not in self._store:
                with self._connections:
                    file = self._cache.fetch(source.sha256, source.size, partial(self._pieces, download))
                self._store.put_file(file)
                log.info("fetched", repo=source.repo, commit=source.commit, path=source.path, bytes=source.size)
            self._cache.forget(source.sha256)
            lock.unlink(missing_ok=True)

    def _pieces(self, download: Download, start: int, end: int) -> Iterator[bytes]:
        """The bytes from the hub; a connection that breaks is made again from there, with growing pauses."""
        source = download.source
        failures, begin = 0, start
        while start < end:
            try:
                with self._hub.stream(source.repo, source.commit, source.path, start, end) as pieces:
                    for piece in pieces:
                        start += len(piece)
                        failures = 0
                        yield piece
                        if download.stopped.is_set():
                            raise UpstreamUnavailable("is not waited for any more")
                if start < end:
                    raise UpstreamUnavailable("ends a file too early")
            except UpstreamUnavailable:
                failures += 1
                retries = _RETRIES if start > begin else _RETRIES_AT_FIRST
                if failures > retries or download.stopped.wait(_FIRST_PAUSE_SECONDS * 2**failures):
                    raise


def _after(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    try:
        if first:
            yield first
        yield from rest
    finally:
        rest.close()  # type: ignore[attr-defined]
