"""What a blob store promises, whatever lies beneath it.

A blob is immutable and named by the sha256 of its bytes. It appears as a whole or not at all, and putting the same
bytes twice keeps one copy.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Blob:
    """Stored bytes, and the two names that Hugging Face clients know them by."""

    sha256: str
    """64 hex digits; the key of the store."""
    size: int
    """Bytes."""
    git_oid: str
    """40 hex digits: sha1 of `blob <size>\\0` and the bytes, as git names a file's content."""


class StorageError(Exception):
    """The store could not do what was asked; the message says what to do next."""


class BlobNotFound(StorageError):  # noqa: N818 - named for what happened
    """No blob has this sha256: it was never stored, or it was removed behind the service's back."""

    def __init__(self, sha256: str) -> None:
        super().__init__(f"No blob {sha256} in the store; publish or import the model that held it again.")
        self.sha256 = sha256


class SourceChanged(StorageError):  # noqa: N818 - named for what happened
    """The file was written to while it was being stored; nothing was kept of it."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path} changed while it was read; wait until its writer has finished and try again.")
        self.path = path


class StorageFull(StorageError):  # noqa: N818 - named for what happened
    """The disk cannot take the file; nothing of it is visible in the store."""

    def __init__(self, directory: Path, *, needed: int, available: int) -> None:
        super().__init__(
            f"The disk under {directory} is full: {needed:,} bytes are needed and {available:,} are free. "
            "Free some space, or move the store to a larger disk with STREAMLINE_STORE_URL."
        )
        self.directory = directory
        self.needed = needed
        self.available = available


class BlobStore(Protocol):
    """Content-addressed bytes. `put_*` may be called by many processes at once, with the same bytes too."""

    def put_file(self, path: Path) -> Blob:
        """Store a copy of the file; later changes of the file do not reach the store.

        Raises:
            StorageFull: there is no room for it.
            SourceChanged: its length changed while it was read.
            OSError: it cannot be read.
        """
        ...

    def put_bytes(self, content: bytes) -> Blob:
        """Store these bytes (for what is made in memory: small files).

        Raises:
            StorageFull: there is no room for them.
        """
        ...

    def open(self, sha256: str) -> BinaryIO:
        """The blob from its first byte, seekable.

        Raises:
            BlobNotFound: there is no such blob.
        """
        ...

    def size(self, sha256: str) -> int:
        """The blob's length in bytes.

        Raises:
            BlobNotFound: there is no such blob.
        """
        ...

    def local_path(self, sha256: str) -> Path:
        """A read-only file on this machine that holds exactly the blob (a remote store fetches it into its cache).

        Raises:
            BlobNotFound: there is no such blob.
        """
        ...

    def collect_abandoned(self) -> int:
        """Remove what killed writers left half-written, and nothing of living ones; returns how many files."""
        ...

    def __contains__(self, sha256: str) -> bool: ...


def check_sha256(value: str) -> str:
    """Return `value` if it can be a key; it becomes part of a path, so anything else is refused.

    Raises:
        ValueError: it is not 64 lower-case hex digits.
    """
    if not _SHA256.fullmatch(value):
        raise ValueError(f"not a sha256 of 64 lower-case hex digits: {value!r}")
    return value
