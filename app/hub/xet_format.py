"""The two binary forms in which Xet clients upload: xorbs (chunks) and shards (how files are made of chunks).

Our own reader of what huggingface/xet-core's specification lays down (spec/xorb.md, spec/shard.md). Only what a bridge
into ordinary blobs needs is read; hashes of chunks and trees are not checked, because the sha256 of every finished file
is. Sizes are checked before anything is allocated, so that bad input costs no more memory than one chunk.
"""

import struct
from dataclasses import dataclass
from typing import BinaryIO

import lz4.frame

MAX_CHUNK_BYTES = 128 << 10
"""Of a chunk, raw; the client cuts no longer ones."""
MAX_XORB_BYTES = 64 << 20
MAX_XORB_CHUNKS = 1 << 16
MAX_SHARD_BYTES = 80 << 20
MAX_SEGMENTS = 100_000
"""Of a shard, over all its files: what is held in memory of it."""

_CHUNK_HEADER_BYTES = 8
_ENTRY_BYTES = 48
_SHARD_TAG_BYTES = 32
_SHARD_TAG = b"HFRepoMetaData\0" + bytes.fromhex("556967456a7b815783a5bdd95ccdd14aa9")
_SHARD_VERSION = 2
_BOOKEND = b"\xff" * 32
_WITH_VERIFICATION = 1 << 31
_WITH_METADATA = 1 << 30
_FOOTER = b"XETBLOB"
_RAW, _LZ4, _GROUPED_LZ4 = 0, 1, 2
_GROUPS = 4


class BadXorb(ValueError):  # noqa: N818 - named for what happened
    """The bytes are no xorb; the message says where."""


class BadShard(ValueError):  # noqa: N818 - named for what happened
    """The bytes are no shard that was made for an upload; the message says where."""


@dataclass(frozen=True, slots=True)
class ChunkPlace:
    """Where a chunk lies in a xorb."""

    offset: int
    """Of its stored bytes, behind its header."""
    stored: int
    """Length of these."""
    scheme: int
    length: int
    """Bytes of the chunk itself."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A run of chunks of one xorb."""

    xorb: str
    """The xorb's name, 64 hex digits as in URLs."""
    start: int
    end: int
    """Behind the last chunk."""
    length: int
    """Bytes that the run makes."""


@dataclass(frozen=True, slots=True)
class FileRecipe:
    """A file as a shard describes it."""

    sha256: str
    segments: tuple[Segment, ...]

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return sum(segment.length for segment in self.segments)


def chunk_places(xorb: BinaryIO, size: int) -> list[ChunkPlace]:
    """The chunks of a xorb of `size` bytes, in order, without reading their contents.

    Raises:
        BadXorb: a header that cannot be, or a chunk that reaches behind the end.
    """
    places: list[ChunkPlace] = []
    position = 0
    while position < size:
        xorb.seek(position)
        header = xorb.read(_CHUNK_HEADER_BYTES)
        if header[: len(_FOOTER)] == _FOOTER:  # older clients append an index, which the headers make needless
            break
        if len(header) < _CHUNK_HEADER_BYTES:
            raise BadXorb(f"it breaks off in the header of chunk {len(places)}")
        stored = int.from_bytes(header[1:4], "little")
        scheme = header[4]
        length = int.from_bytes(header[5:8], "little")
        start = position + _CHUNK_HEADER_BYTES
        if header[0] != 0 or scheme > _GROUPED_LZ4 or not 0 < length <= MAX_CHUNK_BYTES:
            raise BadXorb(f"the header of chunk {len(places)} has a version, a scheme or a length that is not known")
        if start + stored > size or (scheme == _RAW and stored != length):
            raise BadXorb(f"chunk {len(places)} is longer or shorter than its header says")
        places.append(ChunkPlace(start, stored, scheme, length))
        if len(places) > MAX_XORB_CHUNKS:
            raise BadXorb(f"it has more than {MAX_XORB_CHUNKS:,} chunks")
        position = start + stored
    if not places:
        raise BadXorb("it holds no chunk")
    return places


def read_chunk(xorb: BinaryIO, place: ChunkPlace) -> bytes:
    """A chunk's own bytes.

    Raises:
        BadXorb: they cannot be decompressed, or come out longer or shorter than the header says.
    """
    xorb.seek(place.offset)
    stored = xorb.read(place.stored)
    if place.scheme == _RAW:
        return stored
    content = _decompress(stored, place.length)
    if len(content) != place.length:
        raise BadXorb(f"a chunk of {place.length:,} bytes came out with {len(content):,}")
    return content if place.scheme == _LZ4 else _ungroup(content)


def _decompress(stored: bytes, length: int) -> bytes:
    """An LZ4 frame's content, as far as one byte more than `length`: a frame may claim any size."""
    try:
        return bytes(lz4.frame.LZ4FrameDecompressor().decompress(stored, max_length=length + 1))
    except (RuntimeError, EOFError, ValueError) as error:
        raise BadXorb(f"a chunk cannot be decompressed ({error})") from None


def _ungroup(grouped: bytes) -> bytes:
    """Put bytes back that were grouped by their place in each four (the first groups are one longer at the end)."""
    content = bytearray(len(grouped))
    start = 0
    for group in range(_GROUPS):
        count = (len(grouped) - group + _GROUPS - 1) // _GROUPS
        content[group::_GROUPS] = grouped[start : start + count]
        start += count
    return bytes(content)


def parse_shard(shard: BinaryIO) -> list[FileRecipe]:
    """The files that a shard describes, read from its beginning; what follows them in it is not looked at.

    Raises:
        BadShard: it breaks off, is of another version, has a file without sha256, or more segments than MAX_SEGMENTS.
    """
    header = shard.read(_ENTRY_BYTES)
    version = int.from_bytes(header[_SHARD_TAG_BYTES : _SHARD_TAG_BYTES + 8], "little")
    if not header.startswith(_SHARD_TAG) or version != _SHARD_VERSION:
        raise BadShard(f"it does not begin like a shard of version {_SHARD_VERSION}")
    recipes: list[FileRecipe] = []
    allowed = MAX_SEGMENTS
    while (entry := _entry(shard))[:32] != _BOOKEND:
        flags, count = struct.unpack_from("<II", entry, 32)
        allowed -= count + 1
        if allowed < 0:
            raise BadShard(f"it has more than {MAX_SEGMENTS:,} segments")
        segments = tuple(_segment(_entry(shard)) for _ in range(count))
        for _ in range(count if flags & _WITH_VERIFICATION else 0):
            _entry(shard)
        if not flags & _WITH_METADATA:
            raise BadShard("a file has no sha256")
        recipes.append(FileRecipe(_hash_name(_entry(shard)[:32]), segments))
    return recipes


def _entry(shard: BinaryIO) -> bytes:
    entry = shard.read(_ENTRY_BYTES)
    if len(entry) < _ENTRY_BYTES:
        raise BadShard("it breaks off")
    return entry


def _segment(entry: bytes) -> Segment:
    _flags, length, start, end = struct.unpack_from("<IIII", entry, 32)
    if not start < end <= MAX_XORB_CHUNKS:
        raise BadShard(f"a segment has the chunks {start} to {end}")
    return Segment(_hash_name(entry[:32]), start, end, length)


def _hash_name(raw: bytes) -> str:
    """A hash as URLs write it: four little-endian numbers of 64 bits, in hex."""
    return "".join(f"{number:016x}" for number in struct.unpack("<4Q", raw))
