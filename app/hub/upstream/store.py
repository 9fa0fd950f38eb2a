"""A store that has the upstream hub behind it: bytes that a copy names are fetched when they are asked for."""

import io
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import BinaryIO

from app.hub.upstream.downloads import Downloads, Source
from app.hub.upstream.remote import RemoteHub
from app.storage.blobs import Blob, BlobNotFound, BlobStore
from app.storage.ranged_file import RangedFile

_CHUNK_BYTES = 1 << 20


class PullThroughStore:
    """See BlobStore; putting, listing and removing are the inner store's alone."""

    def __init__(
        self, inner: BlobStore, hub: RemoteHub, downloads: Downloads, source_of: Callable[[str], Source | None]
    ) -> None:
        """Fetch what `inner` lacks and `source_of` knows where to find."""
        self._inner = inner
        self._hub = hub
        self.downloads = downloads
        self._source_of = source_of

    @property
    def staging(self) -> Path:
        """See BlobStore."""
        return self._inner.staging

    def put_file(self, path: Path) -> Blob:
        """See BlobStore."""
        return self._inner.put_file(path)

    def put_bytes(self, content: bytes) -> Blob:
        """See BlobStore."""
        return self._inner.put_bytes(content)

    def open(self, sha256: str) -> BinaryIO:
        """The blob; one that is not here is read from the upstream hub in the parts that are asked for (see BlobStore).

        Those bytes are checked when the whole is fetched, and not before.

        Raises:
            UpstreamError: while reading.
        """
        try:
            return self._inner.open(sha256)
        except BlobNotFound:
            source = self._source(sha256)
        return io.BufferedReader(RangedFile(partial(self._part, source), source.size), _CHUNK_BYTES)

    def _part(self, source: Source, start: int, end: int) -> bytes:
        if start >= end:
            return b""
        with self._hub.stream(source.repo, source.commit, source.path, start, end) as pieces:
            return b"".join(pieces)

    def read(self, sha256: str, start: int, end: int) -> Iterator[bytes]:
        """A part of the blob in pieces; an empty one says that the next bytes are on their way (see BlobStore).

        Raises:
            UpstreamError: it cannot be fetched.
        """
        try:
            return self._inner.read(sha256, start, end)
        except BlobNotFound:
            return self.downloads.read(self._source(sha256), start, end)

    def size(self, sha256: str) -> int:
        """See BlobStore."""
        try:
            return self._inner.size(sha256)
        except BlobNotFound:
            return self._source(sha256).size

    def direct_path(self, sha256: str) -> Path | None:
        """See BlobStore."""
        try:
            return self._inner.direct_path(sha256)
        except BlobNotFound:
            self._source(sha256)
            return None

    def presigned_url(self, sha256: str, *, filename: str, media_type: str) -> str | None:
        """See BlobStore."""
        if sha256 not in self._inner:
            return None
        return self._inner.presigned_url(sha256, filename=filename, media_type=media_type)

    def local_path(self, sha256: str) -> Path:
        """See BlobStore.

        Raises:
            UpstreamError: it cannot be fetched.
        """
        try:
            return self._inner.local_path(sha256)
        except BlobNotFound:
            self.downloads.start(self._source(sha256)).done.result()
            return self._inner.local_path(sha256)

    def place(self, sha256: str, at: Path) -> None:
        """See BlobStore.

        Raises:
            UpstreamError: it cannot be fetched.
        """
        self.local_path(sha256)
        self._inner.place(sha256, at)

    def missing(self, sha256: str) -> Source | None:
        """Where a blob that is not here can be fetched from; None where there is nothing to fetch."""
        return None if sha256 in self._inner else self._source_of(sha256)

    def blobs(self) -> Iterator[tuple[str, int]]:
        """See BlobStore."""
        return self._inner.blobs()

    def remove(self, sha256: str) -> None:
        """See BlobStore."""
        self._inner.remove(sha256)

    def set_aside(self, sha256: str) -> str:
        """See BlobStore."""
        return self._inner.set_aside(sha256)

    def collect_abandoned(self) -> int:
        """See BlobStore."""
        return self._inner.collect_abandoned()

    def check(self) -> None:
        """See BlobStore."""
        self._inner.check()

    def __contains__(self, sha256: str) -> bool:
        return sha256 in self._inner

    def _source(self, sha256: str) -> Source:
        source = self._source_of(sha256)
        if source is None:
            raise BlobNotFound(sha256)
        return source
