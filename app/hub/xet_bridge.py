"""From Xet's chunks to ordinary blobs: a shard's files are put together from xorbs, and their sha256 decides.

Clients remember for weeks which xorbs they have sent, by the address that they sent them to, and do not send them
again. So the address holds the day, and xorbs are kept for two.
"""

import hashlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from app.hub.errors import BadXetObject, ContentMismatch, LinkExpired, TooLarge
from app.hub.tickets import BadTicket
from app.hub.uploads import Uploads
from app.hub.xet_format import BadShard, BadXorb, ChunkPlace, FileRecipe, chunk_places, parse_shard, read_chunk

TOKEN_SECONDS = 3600
_PURPOSE = "xet"


@dataclass(frozen=True, slots=True)
class Writer:
    """Who uploads, and where to."""

    owner: str
    """Id of the API key: only its own xorbs make its files."""
    repo_id: int


def issue_token(uploads: Uploads, writer: Writer) -> tuple[str, int]:
    """A token for this writer, and the Unix time at which it ends."""
    content = {"owner": writer.owner, "repo_id": writer.repo_id}
    return uploads.tickets.issue(_PURPOSE, content, seconds=TOKEN_SECONDS), int(time.time()) + TOKEN_SECONDS


def writer_of(uploads: Uploads, token: str) -> Writer:
    """Whose token this is.

    Raises:
        LinkExpired: it is none of ours, or too old.
    """
    try:
        content: dict[str, Any] = uploads.tickets.read(_PURPOSE, token)
    except BadTicket:
        raise LinkExpired from None
    return Writer(**content)


def address_of_today() -> str:
    """The part of the address that changes by the day."""
    return f"d{int(time.time()) // 86400}"


def keep_xorb(uploads: Uploads, writer: Writer, name: str, staged: Path) -> None:
    """Check a received xorb's outline and keep it.

    Raises:
        BadXetObject: it is none.
    """
    with staged.open("rb") as file:
        try:
            chunk_places(file, os.fstat(file.fileno()).st_size)
        except BadXorb as error:
            raise BadXetObject(f"The xorb {name} cannot be read: {error}.") from None
    uploads.keep_xorb(writer.owner, name, staged)


def rebuild(
    uploads: Uploads,
    writer: Writer,
    shard: BinaryIO,
    *,
    is_kept: Callable[[str], bool],
    keep: Callable[[Path, str], None],
) -> int:
    """Put together every file that a shard describes; returns how many there are.

    Args:
        uploads: where the xorbs are, and room for a file.
        writer: whose xorbs they are.
        shard: at its beginning.
        is_kept: whether a file of this sha256 has been kept already (a client repeats what it heard no answer to).
        keep: takes a finished file, whose sha256 has been checked.

    Raises:
        BadXetObject: the shard, or a xorb that it names, cannot be read or is not here.
        ContentMismatch: the bytes make another sha256.
        TooLarge: a file is larger than what is taken here.
        StorageFull: there is no room.
    """
    try:
        recipes = parse_shard(shard)
    except BadShard as error:
        raise BadXetObject(f"The shard cannot be read: {error}.") from None
    for recipe in recipes:
        if recipe.size > uploads.max_bytes:
            raise TooLarge(f"{recipe.sha256} is larger than the {uploads.max_bytes:,} bytes taken here.")
        if is_kept(recipe.sha256):
            continue
        with uploads.staging(recipe.size) as (path, file):
            found = _write(uploads, writer, recipe, file)
            if found != recipe.sha256:
                raise ContentMismatch(recipe.sha256, found)
            file.flush()
            keep(path, recipe.sha256)
    return len(recipes)


def _write(uploads: Uploads, writer: Writer, recipe: FileRecipe, target: BinaryIO) -> str:
    digest = hashlib.sha256()
    opened: str | None = None
    xorb: BinaryIO | None = None
    places: list[ChunkPlace] = []
    try:
        for segment in recipe.segments:
            if segment.xorb != opened:
                if xorb is not None:
                    xorb.close()
                xorb = _open(uploads, writer, segment.xorb)
                places, opened = chunk_places(xorb, os.fstat(xorb.fileno()).st_size), segment.xorb
            assert xorb is not None
            run = places[segment.start : segment.end]
            if len(run) != segment.end - segment.start or sum(place.length for place in run) != segment.length:
                raise BadXetObject(f"The xorb {segment.xorb} does not hold what the shard says.")
            for place in run:
                chunk = read_chunk(xorb, place)
                digest.update(chunk)
                target.write(chunk)
    except BadXorb as error:
        raise BadXetObject(f"The xorb {opened} cannot be read: {error}.") from None
    finally:
        if xorb is not None:
            xorb.close()
    return digest.hexdigest()


def _open(uploads: Uploads, writer: Writer, name: str) -> BinaryIO:
    path = uploads.xorb(writer.owner, name)
    try:
        file = path.open("rb")
    except FileNotFoundError:
        raise BadXetObject(
            f"The xorb {name} is not here (any more). Remove the folder `xet` in HF_HOME, where the client remembers "
            "what it has sent, and upload again; or set HF_HUB_DISABLE_XET=1."
        ) from None
    os.utime(path)  # in use: it is kept for two days more
    return file
