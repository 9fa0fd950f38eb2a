import asyncio
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.types import Message, Receive, Scope, Send

from app.hub.raw_path import RawPathMiddleware, decode_path, decode_segment

segments = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30)


@given(segment=segments)
def test_one_encoded_segment_stays_one_and_says_what_was_encoded(segment: str) -> None:
    decoded = decode_path(f"/a/resolve/{quote(segment, safe='')}/f".encode())
    assert decoded.count("/") == 4
    assert decode_segment(decoded.split("/")[3]) == segment


def seen_path(raw_path: bytes, path: str) -> str:
    seen: list[Scope] = []

    async def inner(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope)

    async def receive() -> Message:
        raise AssertionError("not read")

    async def send(message: Message) -> None:
        raise AssertionError("not answered")

    scope = {"type": "http", "path": path, "raw_path": raw_path}
    asyncio.run(RawPathMiddleware(inner)(scope, receive, send))
    return str(seen[0]["path"])


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"/demo/m/resolve/feature%2Fx/config.json", "/demo/m/resolve/feature%2Fx/config.json"),
        (b"/m/resolve/a%2fb/x%20y", "/m/resolve/a%2Fb/x y"),
        (b"/api/models/demo/m/tree/a%2Fb/%C3%BC%25", "/api/models/demo/m/tree/a%2Fb/ü%25"),
    ],
)
def test_hub_paths_keep_encoded_slashes(raw: bytes, expected: str) -> None:
    assert seen_path(raw, "as the server decoded it") == expected


@pytest.mark.parametrize("raw", [b"/v1/jobs/a%2Fb", b"/demo/m/resolve/main/x", b"/", b"/docs/a/b/resolve%2F"])
def test_other_paths_are_left_as_the_server_decoded_them(raw: bytes) -> None:
    assert seen_path(raw, "as the server decoded it") == "as the server decoded it"
