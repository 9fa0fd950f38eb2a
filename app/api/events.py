"""A job's events: as they happen (server-sent events, WHATWG HTML section 9.2), or as a list."""

import json
import time
from collections.abc import AsyncIterator, Sequence
from typing import Annotated

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import StreamingResponse
from fastapi.sse import KEEPALIVE_COMMENT, format_sse_event
from starlette.concurrency import run_in_threadpool

from app.api.deps import Parts, Reader, Services, hub_caller, is_still_admitted
from app.api.jobs import AUTH_ERRORS
from app.api.negotiation import preferred
from app.api.problems import documented
from app.auth.scopes import Scope
from app.errors import requests, resources
from app.hub.access import Caller
from app.jobs import event_log, service
from app.jobs.marks import Mark
from app.jobs.views import JobEvent, JobEventList

router = APIRouter(prefix="/v1/jobs/{job_id}/events", tags=["jobs"])

SSE = "text/event-stream"
KEEP_ALIVE_SECONDS = 15.0
RECONNECT_MILLISECONDS = 1000
MAX_LISTED = 10_000
_BATCH = 500
# One event of the stream, as OpenAPI 3.2 describes streams.
_SSE_EVENT = {
    "type": "object",
    "properties": {
        "id": {"type": "string", "description": "Send the last one as `Last-Event-ID` to go on behind it."},
        "event": {"type": "string", "description": "The kind, such as `state` or `progress`."},
        "data": {"type": "string", "contentMediaType": "application/json"},
        "retry": {"type": "integer", "description": "Milliseconds."},
    },
}


@router.get(
    "",
    response_model=JobEventList,
    responses={
        200: {
            "description": "A stream that ends when the job does, or (with `Accept: application/json`) the list.",
            "content": {SSE: {"itemSchema": _SSE_EVENT}},
        },
        204: {"description": "The job is final and has no events behind `Last-Event-ID`: do not connect again."},
        **documented(
            resources.JobNotFound, requests.NotAcceptable, requests.OutOfRange, requests.WrongType, *AUTH_ERRORS
        ),
    },
)
async def list_events(
    job_id: str,
    request: Request,
    parts: Parts,
    caller: Reader,
    accept: Annotated[str | None, Header()] = None,
    last_event_id: Annotated[int | None, Header(ge=0, le=2**31 - 1, description="Go on behind this event.")] = None,
    after: Annotated[int, Query(ge=0, le=2**31 - 1, description="Only events with a greater id.")] = 0,
    last: Annotated[
        int | None, Query(ge=0, le=MAX_LISTED, description="Of the events so far, only that many of the newest.")
    ] = None,
    limit: Annotated[int, Query(ge=1, le=MAX_LISTED, description="Events in the list at most.")] = MAX_LISTED,
) -> Response:
    """What has happened to the job, in order, and what happens next.

    The stream's `data` is the event's `data`; its `id` and `event` are the list's.
    """
    who = hub_caller(caller)
    start = after if last_event_id is None else last_event_id
    wanted = preferred(accept, (SSE, "application/json"))
    if last is not None:
        start = max(start, await run_in_threadpool(_behind, parts, job_id, who, last))
    mark, events = await run_in_threadpool(_read, parts, job_id, who, start, limit if wanted != SSE else 1)
    if wanted == SSE:
        if mark.final and not events:
            return Response(status_code=204)  # an EventSource connects again after anything else
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(_stream(request, parts, job_id, who, start), media_type=SSE, headers=headers)
    more = bool(events) and events[-1].id < mark.events
    answer = JobEventList(items=list(events), next_after=events[-1].id if more else None)
    return Response(answer.model_dump_json(), media_type="application/json")


def _behind(parts: Services, job_id: str, who: Caller, last: int) -> int:
    """The id of the event in front of the newest `last` ones."""
    with parts.read_sessions() as session:
        return service.mark(session, job_id, who).events - last


def _read(parts: Services, job_id: str, who: Caller, after: int, limit: int) -> tuple[Mark, Sequence[JobEvent]]:
    """How far the job is, and its events behind `after`: the mark first, so that no event lies between the two."""
    with parts.read_sessions() as session:
        mark = service.mark(session, job_id, who)
        rows = event_log.events_after(session, job_id, after, limit=limit)
        return mark, [JobEvent.of(row) for row in rows]


async def _stream(request: Request, parts: Services, job_id: str, who: Caller, after: int) -> AsyncIterator[bytes]:
    """The events behind `after` until the job is final; a comment now and then keeps proxies from hanging up.

    Ends early for a caller who would not be let in again: the key was revoked, they have logged out, or a repository of
    the job was hidden from them. Who connects again is told why. It ends with the service too, which starts again.
    """
    yield format_sse_event(retry=RECONNECT_MILLISECONDS)
    admitted_at = time.monotonic()
    while True:
        if time.monotonic() - admitted_at >= KEEP_ALIVE_SECONDS:
            if not await run_in_threadpool(is_still_admitted, request, Scope.READ):
                return
            admitted_at = time.monotonic()
        try:
            mark, events = await run_in_threadpool(_read, parts, job_id, who, after, _BATCH)
        except resources.JobNotFound:
            return
        for event in events:
            after = event.id
            yield format_sse_event(data_str=json.dumps(event.data), event=event.event, id=str(event.id))
        if after < mark.events:
            continue
        if mark.final:
            return
        changed = await parts.watcher.wait(job_id, mark, KEEP_ALIVE_SECONDS)
        if parts.watcher.closed:
            return
        if not changed:
            yield KEEPALIVE_COMMENT
