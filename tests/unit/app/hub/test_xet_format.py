import contextlib
import hashlib
import io
import os
import tracemalloc

import lz4.frame
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.hub.xet_format import MAX_CHUNK_BYTES, BadShard, BadXorb, chunk_places, parse_shard, read_chunk
from tests.unit.app.hub.xet_objects import GROUPED_LZ4, LZ4, RAW, chunk, shard, xorb

NAME = "00112233445566778899aabbccddeeff" * 2
SCHEMES = st.sampled_from([RAW, LZ4, GROUPED_LZ4])


def contents(stored: bytes) -> list[bytes]:
    file = io.BytesIO(stored)
    return [read_chunk(file, place) for place in chunk_places(file, len(stored))]


@given(chunks=st.lists(st.tuples(st.binary(min_size=1, max_size=300), SCHEMES), min_size=1, max_size=6))
def test_what_a_client_packs_is_read_back(chunks: list[tuple[bytes, int]]) -> None:
    stored = b"".join(chunk(content, scheme) for content, scheme in chunks)
    assert contents(stored) == [content for content, _ in chunks]
    assert contents(stored + b"XETBLOB and an index") == [content for content, _ in chunks], "older clients append one"


@given(stored=st.binary(max_size=300))
def test_whatever_the_bytes_they_are_a_xorb_or_refused(stored: bytes) -> None:
    with contextlib.suppress(BadXorb):
        contents(stored)


@given(
    content=st.binary(min_size=1, max_size=200),
    scheme=SCHEMES,
    position=st.integers(0, 10**6),
    value=st.integers(0, 255),
)
def test_a_changed_byte_is_refused_or_changes_no_length(content: bytes, scheme: int, position: int, value: int) -> None:
    stored = bytearray(xorb(content, content, scheme=scheme))
    stored[position % len(stored)] = value
    with contextlib.suppress(BadXorb):
        file = io.BytesIO(bytes(stored))
        for place in chunk_places(file, len(stored)):
            assert len(read_chunk(file, place)) == place.length


@given(content=st.binary(min_size=1, max_size=100), cut=st.integers(1, 100))
def test_a_xorb_that_breaks_off_is_refused(content: bytes, cut: int) -> None:
    stored = xorb(content, content)
    with pytest.raises(BadXorb):
        contents(stored[: -min(cut, len(content) + 7)])


def test_a_chunk_that_swells_costs_no_more_memory_than_it_may_have() -> None:
    bomb = lz4.frame.compress(bytes(64 << 20))
    header = b"\0" + len(bomb).to_bytes(3, "little") + bytes([LZ4]) + MAX_CHUNK_BYTES.to_bytes(3, "little")
    tracemalloc.start()
    with pytest.raises(BadXorb, match="came out with"):
        contents(header + bomb)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 << 20


def test_a_chunk_longer_than_any_client_cuts_is_refused() -> None:
    with pytest.raises(BadXorb, match="length"):
        contents(chunk(bytes(MAX_CHUNK_BYTES + 1)))


@given(files=st.lists(st.tuples(st.binary(max_size=20), st.lists(st.integers(1, 1000), max_size=4)), max_size=4))
def test_a_shards_files_are_read_back(files: list[tuple[bytes, list[int]]]) -> None:
    described = [(content, [(NAME, length, 0, length) for length in lengths]) for content, lengths in files]
    recipes = parse_shard(io.BytesIO(shard(*described)))
    assert [recipe.sha256 for recipe in recipes] == [hashlib.sha256(content).hexdigest() for content, _ in files]
    assert [recipe.size for recipe in recipes] == [sum(lengths) for _, lengths in files]
    assert {segment.xorb for recipe in recipes for segment in recipe.segments} <= {NAME}


@given(body=st.binary(max_size=400), position=st.integers(0, 10**6), cut=st.integers(0, 400))
def test_whatever_the_bytes_they_are_a_shard_or_refused(body: bytes, position: int, cut: int) -> None:
    good = shard((b"x", [(NAME, 5, 0, 1)]))
    place = position % len(good)
    for bad in (body, good[:48] + body, good[: len(good) - cut], good[:place] + body + good[place + len(body) :]):
        with contextlib.suppress(BadShard):
            parse_shard(io.BytesIO(bad))


def test_a_shard_that_claims_more_than_it_holds_costs_no_memory() -> None:
    claims = shard((b"x", []))[:48] + os.urandom(32) + b"\xff\xff\xff\xff" * 2 + bytes(8)
    tracemalloc.start()
    with pytest.raises(BadShard, match="segments"):
        parse_shard(io.BytesIO(claims + bytes(1 << 20)))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 << 20
