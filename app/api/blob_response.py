"""Sending a part of a blob with little memory, and letting go of it however the transfer ends."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator, Mapping

from fastapi.responses import RedirectResponse, StreamingResponse
from starlette.concurrency import iterate_in_threadpool
from starlette.types import Receive, Scope, Send

from app.storage.blobs import BlobStore

_PAUSE_SECONDS = 0.05
"""Between two looks whether the next bytes have come from an upstream hub; no thread is held meanwhile."""


class BlobResponse(StreamingResponse):
    """Bytes `start` to `end` (exclusive) of a blob; the headers, Content-Length too, are the caller's."""

    def __init__(
        self,
        store: BlobStore,
        sha256: str,
        start: int,
        end: int,
        *,
        status_code: int,
        headers: Mapping[str, str],
        media_type: str,
    ) -> None:
        """Begin to read.

        Raises:
            BlobNotFound: there is no such blob.
            UpstreamError: it would have to be fetched, and cannot be.
        """
        self._pieces = store.read(sha256, start, end)
        super().__init__(_whole(self._pieces, end - start), status_code, headers, media_type)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send, and close the file also where the client has gone away (garbage collection alone would come late)."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            with contextlib.suppress(AttributeError, ValueError):  # no file beneath, or a thread reads it this moment
                self._pieces.close()  # type: ignore[attr-defined]


def redirect_to_store(
    store: BlobStore, sha256: str, *, filename: str, headers: Mapping[str, str], media_type: str
) -> RedirectResponse | None:
    """Send the client to the store itself, where the settings allow it; it sends its Range along."""
    url = store.presigned_url(sha256, filename=filename, media_type=media_type)
    return None if url is None else RedirectResponse(url, 302, headers=headers)


async def _whole(pieces: Iterator[bytes], left: int) -> AsyncIterator[bytes]:
    async for piece in iterate_in_threadpool(pieces):
        left -= len(piece)
        if piece:
            yield piece
        else:
            await asyncio.sleep(_PAUSE_SECONDS)
    if left:  # the client sees a transfer cut short, as it must: the length was promised
        raise OSError(f"{left} bytes are missing at the end of a blob; run `streamline fsck`")
