"""Xorbs and shards as a client writes them, for tests of what reads them."""

import hashlib
import struct
from collections.abc import Sequence

import lz4.frame

TAG = b"HFRepoMetaData\0" + bytes.fromhex("556967456a7b815783a5bdd95ccdd14aa9")
BOOKEND = b"\xff" * 32 + bytes(16)
RAW, LZ4, GROUPED_LZ4 = 0, 1, 2


def chunk(content: bytes, scheme: int = RAW) -> bytes:
    grouped = b"".join(content[start::4] for start in range(4)) if scheme == GROUPED_LZ4 else content
    stored = grouped if scheme == RAW else lz4.frame.compress(grouped)
    return b"\0" + len(stored).to_bytes(3, "little") + bytes([scheme]) + len(content).to_bytes(3, "little") + stored


def xorb(*contents: bytes, scheme: int = RAW) -> bytes:
    return b"".join(chunk(content, scheme) for content in contents)


def raw_hash(name: str) -> bytes:
    return struct.pack("<4Q", *(int(name[start : start + 16], 16) for start in range(0, 64, 16)))


def shard(*files: tuple[bytes, Sequence[tuple[str, int, int, int]]], sha256: bytes | None = None) -> bytes:
    """A shard of (content, segments as (xorb, length, start, end)) files; `sha256` in place of the contents' own."""
    body = TAG + struct.pack("<QQ", 2, 0)
    for content, segments in files:
        digest = sha256 or hashlib.sha256(content).digest()
        body += bytes(32) + struct.pack("<IIQ", (1 << 31) | (1 << 30), len(segments), 0)
        for name, length, start, end in segments:
            body += raw_hash(name) + struct.pack("<IIII", 0, length, start, end)
        body += bytes(48) * len(segments)
        body += struct.pack("<4Q", *struct.unpack(">4Q", digest)) + bytes(16)
    return body + BOOKEND + BOOKEND
