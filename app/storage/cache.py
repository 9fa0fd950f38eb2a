"""Blobs of a remote store as files of this machine: downloaded once, checked, kept within a budget of bytes."""

import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from app.storage.blobs import BlobCorrupt, check_sha256
from app.storage.staging import flush_to_disk, free_bytes, locked_file, require_space, show

KEEP_SECONDS = 600.0
"""A file that was asked for so recently is kept whatever the budget: whoever asked may not have opened it yet."""

_CHUNK_BYTES = 1 << 20
_COMPLETE = 0o444
"""Mode of a file whose bytes have the right hash; one that is being written can be written to."""

Read = Callable[[int, int], Iterator[bytes]]
"""(start, end) -> the blob's bytes there, in pieces."""


@dataclass(frozen=True, slots=True)
class Followed:
    """A file that another thread or process may be writing at this moment."""

    file: BinaryIO

    def look(self) -> tuple[int, bool, bool]:
        """How many bytes there are, whether that is all and their hash is right, whether they have been given up."""
        status = os.fstat(self.file.fileno())
        complete = not status.st_mode & 0o222
        return status.st_size, complete, not complete and status.st_nlink == 0


@dataclass(frozen=True, slots=True)
class _Kept:
    used: int
    """When it was last written to or asked for, in nanoseconds of the file system's clock."""
    size: int
    path: Path


class BlobCache:
    """Files by their sha256 under one directory, for any number of processes.

    A download is written to `partial/` under a lock, so that everybody who asks for the same blob waits for the one
    download; after a kill the next one goes on where it stopped. The clock is the file system's own.
    """

    def __init__(self, directory: Path, *, budget_bytes: int) -> None:
        """Use `directory`, made if it is missing; one blob that is larger than the budget is still fetched."""
        self._files = directory / "sha256"
        self._partial = directory / "partial"
        self._budget = budget_bytes
        for made in (self._files, self._partial):
            made.mkdir(parents=True, exist_ok=True)

    def fetch(self, sha256: str, size: int, read: Read) -> Path:
        """The blob's read-only file, downloaded through `read` where it is not there yet.

        Raises:
            BlobCorrupt: what `read` gave has another hash, twice.
            StorageFull: no room, also after everything that may go has gone.
        """
        final = self._files / check_sha256(sha256)
        if self._used_now(final):
            return final
        for _ in range(2):  # what a kill or a power cut left may be damaged: then from the beginning
            with locked_file(self._partial / sha256) as partial:
                if self._used_now(final):  # downloaded while we waited
                    (self._partial / sha256).unlink()
                    return final
                have = os.fstat(partial.fileno()).st_size
                self._make_room(size - min(have, size))
                require_space(self._partial, size - min(have, size))
                if _download(partial, size, read) == sha256:
                    flush_to_disk(partial)
                    os.fchmod(partial.fileno(), _COMPLETE)
                    show(self._partial / sha256, final)
                    return final
                # A new file next time: whoever follows this one must not be given the halves of two.
                (self._partial / sha256).unlink()
        raise BlobCorrupt(sha256)

    def follow(self, sha256: str) -> "Followed | None":
        """The blob's file, or what has come of it so far; None where nothing has."""
        for directory in (self._files, self._partial, self._files):  # shown while we looked
            try:
                return Followed((directory / sha256).open("rb"))
            except FileNotFoundError:
                continue
        return None

    def forget(self, sha256: str) -> None:
        """Remove the blob's file, if it is there; who has it open goes on reading."""
        (self._files / check_sha256(sha256)).unlink(missing_ok=True)

    def _make_room(self, needed: int) -> None:
        """Remove what was not asked for the longest, until `needed` more bytes fit the budget and the disk."""
        kept = sorted(self._kept(), key=lambda file: file.used)
        excess = max(
            sum(file.size for file in kept) + needed - self._budget,
            needed - free_bytes(self._partial),
        )
        for file in kept:
            if excess <= 0:
                return
            if file.used < self._now() - KEEP_SECONDS * 10**9 and _remove_unused(file):
                excess -= file.size

    def _kept(self) -> Iterator[_Kept]:
        for directory in (self._files, self._partial):
            for path in directory.iterdir():
                try:
                    status = path.stat()
                except FileNotFoundError:
                    continue
                yield _Kept(_used(status), status.st_size, path)

    def _now(self) -> int:
        clock = self._partial.parent / "clock"
        clock.touch()
        return clock.stat().st_mtime_ns

    def _used_now(self, path: Path) -> bool:
        """Note that the file was asked for, by its time of access alone.

        The time of change is that of every other name of it too: a workspace's model would look as if it had been
        written anew, and a job that goes on would fetch it once more.
        """
        try:
            os.utime(path, ns=(self._now(), path.stat().st_mtime_ns))
        except FileNotFoundError:
            return False
        return True


def _used(status: os.stat_result) -> int:
    return max(status.st_atime_ns, status.st_mtime_ns)


def _remove_unused(kept: _Kept) -> bool:
    """Remove the file unless somebody is writing it or has asked for it since it was looked at."""
    try:
        with kept.path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _used(os.fstat(file.fileno())) != kept.used:
                return False
            kept.path.unlink()
    except (BlockingIOError, FileNotFoundError):
        return False
    return True


def _download(partial: BinaryIO, size: int, read: Read) -> str:
    """Complete the file to `size` bytes; returns the sha256 of all of them, those of an earlier try included."""
    digest = hashlib.sha256()
    partial.seek(0)
    have = 0
    while have < size and (chunk := partial.read(min(_CHUNK_BYTES, size - have))):
        digest.update(chunk)
        have += len(chunk)
    partial.truncate(have)  # opened for appending: what is written next begins here
    for piece in read(have, size):
        digest.update(piece)
        partial.write(piece)
        partial.flush()  # for who follows
    return digest.hexdigest()


def place(cached: Path, at: Path) -> None:
    """Make `at` one more name of the cached file, so that its bytes stay when the cache lets go; a copy elsewhere."""
    staged = at.with_name(f".{at.name}.staged")
    staged.unlink(missing_ok=True)
    try:
        staged.hardlink_to(cached)
    except OSError:  # another file system, or one without hard links
        shutil.copyfile(cached, staged)
        staged.chmod(0o444)
    staged.rename(at)
