"""Blobs on the local disk: `blobs/sha256/ab/cdef...`, written through `staging/` on the same file system."""

import hashlib
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from app.storage.blobs import (
    Blob,
    BlobNotFound,
    Register,
    SourceChanged,
    StoreRefused,
    check_sha256,
    unregistered,
)
from app.storage.staging import collect_abandoned, flush_directory, flush_to_disk, show, staged_file

_CHUNK_BYTES = 256 << 10  # small enough that both hashes and the write find the bytes in the processor's cache
_READ_BYTES = 1 << 20


class LocalBlobStore:
    """A directory of read-only files named by their sha256.

    Files are copied, never hard-linked, because whoever put a file may go on writing to it.
    """

    def __init__(self, root: Path, *, register: Register = unregistered) -> None:
        """Use `root` (made if it is missing), without touching what other processes are writing in it."""
        self._root = root
        self._blobs = root / "blobs" / "sha256"
        self._register = register
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
                if copied > size:  # it may go on growing for ever
                    break
                sha256.update(chunk)
                git.update(chunk)
                target.write(chunk)
            if copied != size:  # git's name begins with the length, so it would name other bytes
                raise SourceChanged(name)
            blob = Blob(sha256.hexdigest(), size, git.hexdigest())
            self._register(blob)
            final = self._path(blob.sha256)
            if not final.exists():
                flush_to_disk(target)
                os.fchmod(target.fileno(), 0o444)
                if not final.parent.is_dir():
                    self._make(final.parent)
                show(staged, final)
        return blob

    def _make(self, directory: Path) -> None:
        try:
            directory.mkdir(exist_ok=True)
        except (FileNotFoundError, NotADirectoryError):
            raise StoreRefused(f"{self._blobs} is no directory any more; put it back, or mount its disk.") from None
        flush_directory(self._blobs)

    def open(self, sha256: str) -> BinaryIO:
        """The blob from its first byte (see BlobStore)."""
        return self.local_path(sha256).open("rb")

    def read(self, sha256: str, start: int, end: int) -> Iterator[bytes]:
        """A part of the blob in pieces (see BlobStore)."""
        return _pieces(self.open(sha256), start, end)

    def size(self, sha256: str) -> int:
        """The blob's length in bytes (see BlobStore)."""
        return self.local_path(sha256).stat().st_size

    def local_path(self, sha256: str) -> Path:
        """The blob's file (see BlobStore)."""
        path = self._path(sha256)
        if not path.is_file():
            raise BlobNotFound(sha256)
        return path

    def direct_path(self, sha256: str) -> Path:
        """The blob's file (see BlobStore)."""
        return self.local_path(sha256)

    def presigned_url(self, sha256: str, *, filename: str, media_type: str) -> None:
        """None: files of this machine are served by this machine."""

    def place(self, sha256: str, at: Path) -> None:
        """Make `at` a symbolic link to the blob (see BlobStore)."""
        blob = self.local_path(sha256).absolute()
        staged = at.with_name(f".{at.name}.staged")
        staged.unlink(missing_ok=True)
        staged.symlink_to(blob)
        staged.rename(at)

    def blobs(self) -> Iterator[tuple[str, int]]:
        """Every blob's sha256 and length (see BlobStore)."""
        for directory in self._blobs.iterdir():
            for path in directory.iterdir():
                try:
                    yield directory.name + path.name, path.stat().st_size
                except FileNotFoundError:  # removed while we looked
                    continue

    def remove(self, sha256: str) -> None:
        """Remove the blob (see BlobStore)."""
        self._path(sha256).unlink(missing_ok=True)

    def set_aside(self, sha256: str) -> str:
        """Move a damaged blob to `aside/` (see BlobStore)."""
        damaged = self.local_path(sha256)
        aside = self._root / "aside" / sha256
        aside.parent.mkdir(exist_ok=True)
        show(damaged, aside)
        return str(aside)

    def check(self) -> None:
        """Look whether the directory can be written to (see BlobStore)."""
        if not all(os.access(directory, os.W_OK | os.X_OK) for directory in (self.staging, self._blobs)):
            raise StoreRefused(f"{self._root} cannot be written to; give the service's user permission.")

    def __contains__(self, sha256: str) -> bool:
        return self._path(sha256).is_file()

    def _path(self, sha256: str) -> Path:
        check_sha256(sha256)
        return self._blobs / sha256[:2] / sha256[2:]


def _pieces(file: BinaryIO, start: int, end: int) -> Iterator[bytes]:
    with file:
        file.seek(start)
        while start < end and (piece := file.read(min(_READ_BYTES, end - start))):
            start += len(piece)
            yield piece
