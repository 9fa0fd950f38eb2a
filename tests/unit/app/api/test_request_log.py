"""A request that ends otherwise than by its answer."""

import asyncio
from typing import Any

from starlette.types import Message, Receive, Scope, Send

from app.api.request_log import RequestLogMiddleware


def test_a_request_that_a_stopping_server_cuts_off_is_to_be_sent_again() -> None:
    sent: list[Any] = []

    async def waits(_scope: Scope, _receive: Receive, _send: Send) -> None:
        await asyncio.sleep(60)

    async def send(message: Message) -> None:
        sent.append(message)

    async def scene() -> None:
        scope = {"type": "http", "method": "GET", "path": "/v1/jobs/j", "headers": []}
        request = asyncio.create_task(RequestLogMiddleware(waits)(scope, asyncio.Event().wait, send))  # type: ignore[arg-type]
        await asyncio.sleep(0.01)
        request.cancel()
        await request

    asyncio.run(scene())
    headers = dict(sent[0]["headers"])
    assert sent[0]["status"] == 503
    assert headers[b"content-type"] == b"application/problem+json"
    assert int(headers[b"retry-after"]) >= 1
