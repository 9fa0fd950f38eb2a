"""Sending a part of a local file with little memory, and letting go of the file however the transfer ends."""

from collections.abc import Iterator, Mapping
from io import RawIOBase
from pathlib import Path

from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

_CHUNK_BYTES = 1 << 20  # what one transfer holds in memory at a time, besides the server's own buffer


class BlobResponse(StreamingResponse):
    """Bytes `start` to `end` (exclusive) of a file; the headers, Content-Length too, are the caller's."""

    def __init__(
        self, path: Path, start: int, end: int, *, status_code: int, headers: Mapping[str, str], media_type: str
    ) -> None:
        self._file = path.open("rb", buffering=0)
        self._file.seek(start)
        super().__init__(_chunks(self._file, end - start), status_code, headers, media_type)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send, and close the file also where the client has gone away (garbage collection alone would come late)."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._file.close()


def _chunks(file: RawIOBase, left: int) -> Iterator[bytes]:
    while left:
        chunk = file.read(min(_CHUNK_BYTES, left))
        if not chunk:  # the client sees a transfer cut short, as it must: the length was promised
            raise OSError(f"{left} bytes are missing at the end of a blob; run an integrity check of the store")
        left -= len(chunk)
        yield chunk
