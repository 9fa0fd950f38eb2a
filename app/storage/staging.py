"""Staging: write under a name that nobody reads, then show the finished file with one rename.

A staging file is held with an exclusive flock for as long as its writer lives, so what a killed process left behind is
told from what another process is writing at this moment without any clock.
"""

import errno
import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

from app.storage.blobs import StorageFull, StoreRefused, StoreUnavailable

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT}
_NOT_ALLOWED = {errno.EROFS, errno.EACCES, errno.EPERM}
_PASSING = {errno.EMFILE, errno.ENFILE, errno.EIO, errno.ESTALE}


@contextmanager
def staged_file(directory: Path, *, needed: int) -> Iterator[tuple[Path, BinaryIO]]:
    """A new, locked file in `directory` (an existing one) for `needed` bytes; whatever happens, it is gone afterwards.

    The caller renames it before leaving the block, or lets it go.

    Raises:
        StorageFull: fewer than `needed` bytes are free at the start, or the disk fills up on the way.
        StoreRefused: the directory is read-only.
        StoreUnavailable: this machine has no file handles left, or the disk has an error.
    """
    require_space(directory, needed)
    with typed_errors(directory):
        path, file = _create_locked(directory)
    try:
        with typed_errors(directory), file:
            yield path, file
    except OSError as error:
        if error.errno in _NO_ROOM:
            path.unlink(missing_ok=True)  # before the count: our own half is not what fills the disk
            raise StorageFull(directory, needed=needed, available=free_bytes(directory)) from error
        raise
    finally:
        with suppress(OSError):  # on a disk that has become read-only the half stays, locked by nobody
            path.unlink(missing_ok=True)


@contextmanager
def typed_errors(directory: Path, *, needed: int | None = None) -> Iterator[None]:
    """What is wrong with the disk or with this process, told from what is wrong with a file.

    Raises:
        StorageFull: the disk is full (only with `needed`, the bytes that are being written).
        StoreRefused, StoreUnavailable: see staged_file.
    """
    try:
        yield
    except OSError as error:
        if needed is not None and error.errno in _NO_ROOM:
            raise StorageFull(directory, needed=needed, available=free_bytes(directory)) from error
        if error.errno in _NOT_ALLOWED:
            raise StoreRefused(f"{directory} cannot be written to: {error.strerror}.") from error
        if error.errno in _PASSING:
            raise StoreUnavailable(f"{directory} cannot be written to at the moment: {error.strerror}.") from error
        raise


def _create_locked(directory: Path) -> tuple[Path, BinaryIO]:
    while True:
        path = directory / uuid4().hex
        file = path.open("xb")
        fcntl.flock(file, fcntl.LOCK_EX)
        if os.fstat(file.fileno()).st_nlink:
            return path, file
        file.close()  # a collector was quicker than our lock


def locked_file(path: Path) -> BinaryIO:
    """The file at `path`, made if it is missing, under an exclusive lock.

    The lock goes when the file is closed, or with the process. Whoever waited for somebody that removed or renamed the
    file meanwhile gets a new one.
    """
    while True:
        file = path.open("a+b")
        fcntl.flock(file, fcntl.LOCK_EX)
        try:
            if os.fstat(file.fileno()).st_ino == path.stat().st_ino:
                return file
        except FileNotFoundError:
            pass
        file.close()


def collect_abandoned(directory: Path) -> int:
    """Remove the staging files of dead writers and leave those of living ones; returns how many were removed."""
    removed = 0
    for path in directory.iterdir():
        try:
            file = path.open("rb")
        except FileNotFoundError:  # finished while we looked
            continue
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            path.unlink(missing_ok=True)
            removed += 1
    return removed


def free_bytes(directory: Path) -> int:
    """Bytes that this process may still write under `directory`."""
    return shutil.disk_usage(directory).free


def require_space(directory: Path, needed: int) -> None:
    """Refuse before the first byte what cannot fit.

    Raises:
        StorageFull: fewer than `needed` bytes are free.
    """
    available = free_bytes(directory)
    if needed > available:
        raise StorageFull(directory, needed=needed, available=available)


def flush_to_disk(file: BinaryIO) -> None:
    """Push the file's bytes through every cache, so that a rename can never show an empty or half file."""
    file.flush()
    os.fsync(file.fileno())


def make_once(path: Path, content: bytes) -> None:
    """Make a small file that only this user may read, unless it is there; all who try at once see one content."""
    path.parent.mkdir(parents=True, exist_ok=True)
    staged = path.with_name(f".{path.name}.{uuid4().hex}")
    descriptor = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            flush_to_disk(file)
        path.hardlink_to(staged)  # unlike a rename it does not replace what somebody else has made meanwhile
    except FileExistsError:
        pass
    finally:
        staged.unlink()


def show(staged: Path, target: Path) -> None:
    """Give a flushed file its final name, durably: the directory entry is on disk when this returns."""
    staged.rename(target)
    flush_directory(target.parent)


def flush_directory(directory: Path) -> None:
    """Make the names in `directory` durable."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
