"""A form means the same however the network cuts it into pieces."""

import asyncio
import io
import itertools
from collections.abc import AsyncIterator

from hypothesis import given
from hypothesis import strategies as st

from app.datasets.uploads import UploadForm

BODY = (
    b'--b\r\nContent-Disposition: form-data; name="name"\r\n\r\nM\xc3\xa4rchen\r\n'
    b'--b\r\ncontent-disposition: form-data; name="file"; filename="C:\\dir\\a.jsonl"\r\nContent-Type: x/y\r\n\r\n'
)
TAIL = b"\r\n--b--\r\n"


@given(cuts=st.lists(st.integers(0, 400), max_size=12), content=st.binary(max_size=200))
def test_any_cutting_gives_the_same_file_and_name(cuts: list[int], content: bytes) -> None:
    content = content.replace(b"\r\n--b", b"")
    body = BODY + content + TAIL
    edges = sorted({0, len(body), *(cut for cut in cuts if cut < len(body))})

    async def pieces() -> AsyncIterator[bytes]:
        for start, end in itertools.pairwise(edges):
            yield body[start:end]

    sink = io.BytesIO()
    form = UploadForm("multipart/form-data; boundary=b", sink, max_bytes=1000)
    name = asyncio.run(form.read(pieces()))
    assert (name, form.filename, sink.getvalue()) == ("Märchen", "a.jsonl", content)
