"""What a blob store promises, whatever lies beneath it.

A blob is immutable and named by the sha256 of its bytes. It appears as a whole or not at all, and putting the same
bytes twice keeps one copy.
"""

import re
from collections.abc import Callable, Iterator
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


Register = Callable[[Blob], None]
"""Told of every blob that is put, before the store looks whether it has its bytes: see `app.storage.register`."""


def unregistered(_blob: Blob) -> None:
    """For a store that nothing is ever collected from."""


class StorageError(Exception):
    """The store could not do what was asked; the message says what to do next."""


class BlobNotFound(StorageError):  # noqa: N818 - named for what happened
    """No blob has this sha256: it was never stored, or it was removed behind the service's back."""

    def __init__(self, sha256: str) -> None:
        super().__init__(f"No blob {sha256} in the store; publish or import the model that held it again.")
        self.sha256 = sha256


class BlobCollected(StorageError):  # noqa: N818 - named for what happened
    """A blob that was put long ago and named by nothing has been collected before it was published."""

    def __init__(self, sha256: str) -> None:
        super().__init__(f"Blob {sha256} was put too long ago and has been collected since; store its file again.")
        self.sha256 = sha256


class BlobCorrupt(StorageError):  # noqa: N818 - named for what happened
    """The bytes that the store holds under this sha256 are others."""

    def __init__(self, sha256: str) -> None:
        super().__init__(
            f"Blob {sha256} is damaged: its bytes have another hash. Run `streamline fsck --repair`, then publish or "
            "import the model that held it again."
        )
        self.sha256 = sha256


class SourceChanged(StorageError):  # noqa: N818 - named for what happened
    """The file was written to while it was being stored; nothing was kept of it."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path.name} changed while it was read; wait until its writer has finished and try again.")
        self.path = path


class StorageFull(StorageError):  # noqa: N818 - named for what happened
    """The disk or the bucket cannot take the file; nothing of it is visible in the store."""

    def __init__(self, where: Path | str, *, needed: int, available: int | None) -> None:
        """Describe one occurrence.

        Args:
            where: the directory, or the bucket's URL.
            needed: bytes of the file.
            available: bytes that are free; None where the store does not tell (a bucket's quota).
        """
        if available is None:
            what = f"{where} takes no more: {needed:,} bytes are needed. Raise its quota, free some space"
        else:
            what = f"The disk under {where} is full: {needed:,} bytes are needed and {available:,} are free. "
            what += "Free some space"
        super().__init__(f"{what}, or move the store with STREAMLINE_STORE_URL.")
        self.where = where
        self.needed = needed
        self.available = available


class StoreRefused(StorageError):  # noqa: N818 - named for what happened
    """The store does not let us in: credentials, permissions, a disk that has become read-only."""


class StoreUnavailable(StorageError):  # noqa: N818 - named for what happened
    """The store does not answer, or answers with a fault of its own; the same may work in a moment."""


class BlobStore(Protocol):
    """Content-addressed bytes. `put_*` may be called by many processes at once, with the same bytes too.

    Never call `put_*` inside a transaction that has written: it registers the blob in one of its own.
    """

    @property
    def staging(self) -> Path:
        """A directory of this machine for what is on its way into the store (see `staged_file`)."""
        ...

    def put_file(self, path: Path) -> Blob:
        """Store a copy of the file; later changes of the file do not reach the store.

        Raises:
            StorageFull: there is no room for it.
            SourceChanged: its length changed while it was read.
            StoreRefused, StoreUnavailable: an object store's.
            OSError: it cannot be read.
        """
        ...

    def put_bytes(self, content: bytes) -> Blob:
        """Store these bytes (for what is made in memory: small files).

        Raises:
            StorageFull, StoreRefused, StoreUnavailable: as put_file.
        """
        ...

    def open(self, sha256: str) -> BinaryIO:
        """The blob from its first byte, seekable; what is not read is not transferred.

        Raises:
            BlobNotFound: there is no such blob.
        """
        ...

    def read(self, sha256: str, start: int, end: int) -> Iterator[bytes]:
        """The bytes from `start` to `end` (exclusive) in pieces of a few MiB, the first one fetched when asked for.

        An empty piece says that the next ones are still on their way here.

        Raises:
            BlobNotFound: there is no such blob; raised by the call itself.
        """
        ...

    def size(self, sha256: str) -> int:
        """The blob's length in bytes.

        Raises:
            BlobNotFound: there is no such blob.
        """
        ...

    def direct_path(self, sha256: str) -> Path | None:
        """The blob's own file where the store is a directory of this machine; None where bytes have to be `read`.

        Raises:
            BlobNotFound: there is no such blob.
        """
        ...

    def presigned_url(self, sha256: str, *, filename: str, media_type: str) -> str | None:
        """An address that clients may fetch the blob from by themselves for a while, where the settings allow it."""
        ...

    def local_path(self, sha256: str) -> Path:
        """A read-only file on this machine that holds exactly the blob (a remote store fetches it into its cache).

        Open it soon: a cache keeps a file for ten minutes after it was asked for, whatever its budget.

        Raises:
            BlobNotFound: there is no such blob.
            BlobCorrupt: the store holds other bytes under this name.
        """
        ...

    def place(self, sha256: str, at: Path) -> None:
        """Make `at` a read-only file with the blob's bytes that stays for as long as nobody removes `at`.

        Raises:
            BlobNotFound, BlobCorrupt: as local_path.
        """
        ...

    def blobs(self) -> Iterator[tuple[str, int]]:
        """Every blob's sha256 and length, in no order."""
        ...

    def remove(self, sha256: str) -> None:
        """Remove the blob, if it is there. Only the collection may: it knows who needs what."""
        ...

    def set_aside(self, sha256: str) -> str:
        """Move a damaged blob out of the way, so that it can be put again; returns where it lies now."""
        ...

    def collect_abandoned(self) -> int:
        """Remove what killed writers left half-written, and nothing of living ones; returns how many files."""
        ...

    def check(self) -> None:
        """Look whether the store can be written to.

        Raises:
            StorageError: it cannot; the message says why.
        """
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
