"""Blobs on the local disk: `blobs/sha256/ab/cdef...`, written through `staging/` on the same file system."""

import hashlib
import io
import os
from pathlib import Path
from typing import BinaryIO

from app.storage.blobs import Blob, BlobNotFound, SourceChanged, check_sha256
from app.storage.staging import collect_abandoned, flush_directory, flush_to_disk, show, staged_file

_CHUNK_BYTES = 256 << 10  # small enough that both hashes and the write find the bytes in the processor's cache


class LocalBlobStore:
    """A directory of read-only files named by their sha256.

    Files are copied, never hard-linked, because whoever put a file may go on writing to it.
    """

    def __init__(self, root: Path) -> None:
        """Use `root` (made if it is missing), without touching what other processes are writing in it."""
        self._blobs = root / "blobs" / "sha256"
        self.staging = root / "staging"
        for directory in (self._blobs, self.staging):
            directory.mkdir(parents=True, exist_ok=True)

    def collect_abandoned(self) -> int:
        """Remove what killed processes left half-written; call it at start. Returns the number of files removed."""
        return collect_abandoned(self.staging)

    def put_file(self, path: Path) -> Blob:
        """Store a copy of the file (see BlobStore)."""
        with path.open("rb", buffering=0) as source:
            size = os.fstat(source.fileno()).st_size
            return self._put(source, size, path)

    def put_bytes(self, content: bytes) -> Blob:
        """Store these bytes (see BlobStore)."""
        return self._put(io.BytesIO(content), len(content), self.staging)

    def _put(self, source: io.RawIOBase | io.BytesIO, size: int, name: Path) -> Blob:
        sha256 = hashlib.sha256()
        git = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
        with staged_file(self.staging, needed=size) as (staged, target):
            copied = 0
            buffer = memoryview(bytearray(_CHUNK_BYTES))  # one for all reads: fresh memory costs more than the copy
            while count := source.readinto(buffer):
                chunk = buffer[:count]
                copied += count
                sha256.update(chunk)
                git.update(chunk)
                target.write(chunk)
            if copied != size:  # git's name begins with the length, so it would name other bytes
                raise SourceChanged(name)
            blob = Blob(sha256.hexdigest(), size, git.hexdigest())
            final = self._path(blob.sha256)
            if not final.exists():
                flush_to_disk(target)
                os.fchmod(target.fileno(), 0o444)
                if not final.parent.is_dir():
                    final.parent.mkdir(exist_ok=True)
                    flush_directory(self._blobs)
                show(staged, final)
        return blob

    def open(self, sha256: str) -> BinaryIO:
        """The blob from its first byte (see BlobStore)."""
        return self.local_path(sha256).open("rb")

    def size(self, sha256: str) -> int:
        """The blob's length in bytes (see BlobStore)."""
        return self.local_path(sha256).stat().st_size

    def local_path(self, sha256: str) -> Path:
        """The blob's file (see BlobStore)."""
        path = self._path(sha256)
        if not path.is_file():
            raise BlobNotFound(sha256)
        return path

    def __contains__(self, sha256: str) -> bool:
        return self._path(sha256).is_file()

    def _path(self, sha256: str) -> Path:
        check_sha256(sha256)
        return self._blobs / sha256[:2] / sha256[2:]
