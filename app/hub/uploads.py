"""Bytes on their way in: written to this service's disk as they come, hashed, and only then given to the store.

Nothing here is visible to anybody. What one request brings lies in a staging file that dies with the request. A file
that comes in parts has one sparse file of its own, into which each part is written at its place, in any order and as
often as it takes; the sha256 of the whole says whether all are there. Whoever begins an upload clears away what was
given up.
"""

import math
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO, Self

from app.hub.errors import LinkExpired
from app.hub.tickets import BadTicket, TicketOffice
from app.storage.staging import collect_abandoned, require_space, staged_file, typed_errors

PART_BYTES = 64 << 20
"""A longer file comes in parts of this size; a part is what is sent again when a connection breaks."""
_MOST_PARTS = 100
"""Parts grow rather than become more: each is a signed link in the answer to a batch of hundreds of files."""
LINK_SECONDS = 12 * 3600
_ABANDONED_SECONDS = 2 * LINK_SECONDS
_XORB_SECONDS = 2 * 86400
_PURPOSE = "upload"
_NOBODY = "local"


@dataclass(frozen=True, slots=True)
class Part:
    """What one upload URL is for: bytes `offset` to `offset + length` of an object of a repository."""

    repo_id: int
    sha256: str
    size: int
    """Bytes of the whole object."""
    offset: int
    length: int
    key: str = ""
    """Id of the API key that asked for the URL, which itself carries none; empty where the service has no keys."""

    @property
    def is_whole(self) -> bool:
        """Whether it is all of the object."""
        return self.length == self.size

    @classmethod
    def all_of(cls, repo_id: int, sha256: str, size: int, *, part_bytes: int, key: str = "") -> list[Self]:
        """The object in parts of `part_bytes`, in order."""
        return [
            cls(repo_id, sha256, size, offset, min(part_bytes, size - offset), key)
            for offset in range(0, max(size, 1), part_bytes)
        ]


class Uploads:
    """Where uploads land, and the links that lead there."""

    def __init__(self, directory: Path, *, max_bytes: int, part_bytes: int = PART_BYTES) -> None:
        """Use `directory`, made when it is first needed; processes may share it.

        Args:
            directory: on a disk with room for what is being uploaded at one time.
            max_bytes: longest file that is taken.
            part_bytes: see PART_BYTES.
        """
        self._directory = directory
        self.max_bytes = max_bytes
        self._part_bytes = part_bytes
        self.tickets = TicketOffice(directory / "links.key")

    def part_bytes(self, size: int) -> int:
        """How long the parts of an object of `size` bytes are."""
        return max(self._part_bytes, math.ceil(size / _MOST_PARTS))

    def link(self, part: Part) -> str:
        """The part's ticket, for an URL."""
        return self.tickets.issue(_PURPOSE, asdict(part), seconds=LINK_SECONDS)

    def part_of(self, ticket: str) -> Part:
        """What a ticket is for.

        Raises:
            LinkExpired: it is none of ours, or too old.
        """
        try:
            content: dict[str, Any] = self.tickets.read(_PURPOSE, ticket)
        except BadTicket:
            raise LinkExpired from None
        return Part(**content)

    @contextmanager
    def staging(self, needed: int) -> Iterator[tuple[Path, BinaryIO]]:
        """A file for `needed` bytes that is gone when the block ends, or the process does.

        Raises:
            StorageFull: there is no room.
        """
        with staged_file(self._made("staging"), needed=needed) as (path, file):
            yield path, file

    @contextmanager
    def place(self, part: Part) -> Iterator[BinaryIO]:
        """The object's file, positioned where the part belongs.

        Raises:
            StorageFull: there is no room for the part.
            StoreRefused, StoreUnavailable: the disk takes no file, or not at the moment.
        """
        path = self.assembled(part)
        require_space(path.parent, part.length)
        with typed_errors(path.parent, needed=part.length):
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.seek(part.offset)
                yield file

    def assembled(self, part: Part) -> Path:
        """The file that an object's parts are written into; there or not."""
        return self._made("parts") / f"{part.repo_id}-{part.sha256}"

    def keep_xorb(self, owner: str, name: str, staged: Path) -> None:
        """Keep a staged xorb for the shards of this owner that name it; an earlier one of this name is replaced."""
        staged.rename(self._made(f"xorbs/{owner or _NOBODY}") / name)

    def xorb(self, owner: str, name: str) -> Path:
        """The file of a kept xorb; there or not."""
        return self._made(f"xorbs/{owner or _NOBODY}") / name

    def collect_abandoned(self) -> int:
        """Remove what was given up: files of dead requests at once, parts and xorbs a day or two after the last use."""
        removed = collect_abandoned(self._made("staging"))
        removed += _remove_older(self._made("parts").iterdir(), _ABANDONED_SECONDS)
        return removed + _remove_older(self._made("xorbs").glob("*/*"), _XORB_SECONDS)

    def _made(self, name: str) -> Path:
        directory = self._directory / name
        directory.mkdir(parents=True, exist_ok=True)
        return directory


def _remove_older(paths: Iterable[Path], seconds: float) -> int:
    oldest = time.time() - seconds
    removed = 0
    for path in paths:
        try:
            if path.stat().st_mtime < oldest:
                path.unlink()
                removed += 1
        except FileNotFoundError:  # completed, or collected by another process, while we looked
            continue
    return removed
