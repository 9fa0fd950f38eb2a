"""Jobs: submit, look, wait, list, cancel, retry."""

from typing import Annotated, Any

import structlog
from fastapi import APIRouter, Depends, Header, Query, Request, Response
from fastapi.responses import JSONResponse
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from app.api.deps import Caller, Parts, Reader, Services, Submitter, hub_caller, require_and_read
from app.api.problems import documented
from app.auth.scopes import Scope
from app.datasets import service as datasets
from app.db.models import JobRow
from app.dispatch.queue import enqueue
from app.errors import outages, references, requests, resources
from app.hub.access import Caller as HubCaller
from app.hub.byte_range import etag_matches
from app.jobs import idempotency, queue, service
from app.jobs.idempotency import Reservation
from app.jobs.listing import begins_with
from app.jobs.marks import Mark
from app.jobs.spec.request import JobRequest
from app.jobs.states import State
from app.jobs.views import Job, JobPage
from app.tracing import job_ended

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])

RETRY_AFTER_SECONDS = 2
MAX_WAIT_SECONDS = 30
_JOB_HEADERS: dict[str, Any] = {
    "ETag": {"description": "Changes with every visible change.", "schema": {"type": "string"}},
    "Retry-After": {"description": "Seconds, while the job is not final.", "schema": {"type": "integer"}},
}

AUTH_ERRORS = (
    requests.InvalidCredentials,
    requests.InsufficientScope,
    requests.ForeignRequest,
    requests.CrossSiteRequest,
    requests.QuotaExceeded,
    outages.Unavailable,
    outages.DatabaseBehind,
)
BODY_ERRORS = (
    requests.MalformedBody,
    requests.BodyTooLarge,
    requests.UnsupportedMediaType,
    requests.InvalidRequest,
    requests.UnknownField,
    requests.MissingField,
    requests.WrongType,
    requests.OutOfRange,
    requests.NotAvailable,
)
PAGE_ERRORS = (requests.InvalidRequest, requests.OutOfRange, requests.WrongType, requests.NotAvailable)
REQUEST_ERRORS = (
    *BODY_ERRORS,
    requests.ConflictingFields,
    requests.GateNotMeasured,
    references.BadRepoName,
    references.UnknownModel,
    references.ModelNotAllowed,
    references.ModelNotFetched,
    references.UnknownRevision,
    references.UnreadableModel,
    references.NoSafetensors,
    references.UnsupportedFamily,
    references.UnsupportedModel,
    references.ReplacementRefused,
    references.BadTarget,
    references.NativeFormRefused,
    references.UnknownDataset,
    references.UnknownColumn,
    references.TextTooShort,
    references.UnknownTask,
    references.MissingTaskData,
    references.BadTaskData,
    references.NoUsableQuestion,
    outages.UpstreamUnavailable,
    outages.UpstreamTimeout,
)


@router.post(
    "",
    status_code=202,
    response_model=Job,
    responses={
        202: {
            "description": "The job is queued, or is the one that the Idempotency-Key has made before.",
            "headers": _JOB_HEADERS | {"Location": {"description": "Path of the job.", "schema": {"type": "string"}}},
        },
        **documented(
            *REQUEST_ERRORS,
            *AUTH_ERRORS,
            outages.StorageFull,
            requests.InvalidIdempotencyKey,
            references.IdempotencyKeyReused,
            resources.IdempotencyKeyInFlight,
        ),
    },
)
def submit_job(
    body: JobRequest,
    parts: Parts,
    caller: Submitter,
    idempotency_key: Annotated[
        str | None,
        Header(description="Sending the request again with the same key and body gives the same job."),
    ] = None,
) -> Response:
    """Submit a job.

    Everything that can be checked is checked first, so that a job that is accepted is one that can work.
    """
    if idempotency_key is None:
        row = _create(parts, caller, body)
    else:
        row = _create_once(parts, caller, body, idempotency.check_key(idempotency_key))
    return _answer(row, 202, {"Location": f"/v1/jobs/{row.id}"})


def _create(parts: Services, caller: Caller, request: JobRequest, reservation: Reservation | None = None) -> JobRow:
    admitted = parts.door.admit(request, hub_caller(caller))
    with parts.sessions.begin() as session:
        for copy in admitted.copies:
            datasets.add(session, name=copy.name, blob=copy.blob, contents=copy.contents)
        request_id = str(structlog.contextvars.get_contextvars().get("request_id", ""))
        row = service.create(
            session,
            admitted.spec,
            owner=caller.owner,
            required_memory_bytes=admitted.required_memory_bytes,
            reservation=reservation,
            request_id=request_id,
        )
    # Only now: a worker must not look for a row that is not there yet. A lost message is sent again by the reconciler.
    _announce(parts, row)
    return row


def _create_once(parts: Services, caller: Caller, request: JobRequest, key: str) -> JobRow:
    with parts.sessions.begin() as session:
        held = idempotency.reserve(session, caller.owner, key, request.digest())
    if isinstance(held, str):
        with parts.read_sessions() as session:
            return service.find(session, held, hub_caller(caller))
    try:
        return _create(parts, caller, request, held)
    except BaseException:
        with parts.sessions.begin() as session:
            idempotency.free(session, held)
        raise


def _announce(parts: Services, row: JobRow) -> None:
    if enqueue(parts.celery, row.id, row.required_memory_bytes):
        with parts.sessions.begin() as session:
            queue.mark_announced(session, row.id)


@router.get("", responses=documented(requests.InvalidRequest, requests.OutOfRange, requests.NotAvailable, *AUTH_ERRORS))
def list_jobs(
    parts: Parts,
    caller: Reader,
    state: Annotated[State | None, Query(description="Only jobs in this state.")] = None,
    model: Annotated[str | None, Query(description="Only jobs on this repository.", max_length=200)] = None,
    label: Annotated[
        list[str] | None, Query(description="`key=value`; with several, jobs that have all of them.", max_length=32)
    ] = None,
    id_prefix: Annotated[
        str | None,
        Query(description="Only jobs whose id begins with these hexadecimal digits.", pattern="^[0-9a-f]{1,32}$"),
    ] = None,
    cursor: Annotated[str | None, Query(description="`next_cursor` of the page before.", max_length=200)] = None,
    limit: Annotated[int, Query(ge=1, le=100, description="Jobs per page.")] = 20,
) -> JobPage:
    """List jobs, newest first. Jobs that come in meanwhile change no later page."""
    with parts.read_sessions() as session:
        page = service.page(
            session,
            hub_caller(caller),
            state=state,
            model=model,
            labels=_labels(label or []),
            cursor=cursor,
            limit=limit,
            also=None if id_prefix is None else begins_with(id_prefix),
        )
    return JobPage(items=[Job.of(row) for row in page.rows], next_cursor=page.next_cursor)


def _polled(session: Session, request: Request, caller: Caller) -> Mark:
    return service.mark(session, request.path_params["job_id"], hub_caller(caller))


Polled = Annotated[tuple[Caller, Mark], Depends(require_and_read(Scope.READ, _polled))]


def _labels(texts: list[str]) -> dict[str, str]:
    pairs = [text.partition("=") for text in texts]
    if any(not (key and equals) for key, equals, _ in pairs) or len({key for key, _, _ in pairs}) != len(pairs):
        raise requests.OutOfRange(
            "label must be key=value, each key once; for example label=ci_run=123.", parameter="label"
        )
    return {key: value for key, _, value in pairs}


@router.get(
    "/{job_id}",
    response_model=Job,
    responses={
        200: {"headers": _JOB_HEADERS},
        304: {"description": "The job is as `If-None-Match` says.", "headers": _JOB_HEADERS},
        **documented(resources.JobNotFound, requests.OutOfRange, requests.WrongType, *AUTH_ERRORS),
    },
)
async def get_job(
    job_id: str,
    parts: Parts,
    polled: Polled,
    wait: Annotated[
        int, Query(ge=0, le=MAX_WAIT_SECONDS, description="Seconds to wait for a change before the answer.")
    ] = 0,
    if_none_match: Annotated[str | None, Header()] = None,
) -> Response:
    """The job as it stands.

    With `wait`, the answer comes as soon as the job differs from what `If-None-Match` names (or, without it, from what
    it is now), and at the latest after that many seconds. A final job is answered at once, and a service that stops
    answers everybody who waits.
    """
    # Nearly every poll finds nothing new, and then the whole job is not read.
    caller, mark = polled
    who = hub_caller(caller)
    if wait and not mark.final and (if_none_match is None or etag_matches(if_none_match, mark.etag)):
        await parts.watcher.wait(job_id, mark, wait)
        mark = await run_in_threadpool(_mark, parts, job_id, who)
    if etag_matches(if_none_match, mark.etag):
        return Response(status_code=304, headers=_headers(mark))
    return _answer(await run_in_threadpool(_row, parts, job_id, who), 200)


def _mark(parts: Services, job_id: str, who: HubCaller) -> Mark:
    with parts.read_sessions() as session:
        return service.mark(session, job_id, who)


def _row(parts: Services, job_id: str, who: HubCaller) -> JobRow:
    with parts.read_sessions() as session:
        return service.find(session, job_id, who)


def _headers(mark: Mark) -> dict[str, str]:
    headers = {"ETag": mark.etag, "Cache-Control": "no-cache"}
    return headers if mark.final else headers | {"Retry-After": str(RETRY_AFTER_SECONDS)}


def _answer(row: JobRow, status: int, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse(Job.of(row).model_dump(mode="json"), status, headers=_headers(Mark.of(row)) | (headers or {}))


@router.post(
    "/{job_id}/cancel",
    status_code=202,
    response_model=Job,
    responses=documented(resources.JobNotFound, resources.JobIsFinal, *AUTH_ERRORS),
)
def cancel_job(job_id: str, parts: Parts, caller: Submitter) -> Response:
    """Ask for the job to be cancelled: a queued one is at once, a running one within two heartbeats.

    Asking again changes nothing. What the job has finished is kept for `retry`.
    """
    with parts.sessions.begin() as session:
        row = service.cancel(session, job_id, hub_caller(caller))
    if row.state == State.CANCELLED:  # while it was queued: no worker will tell of its end
        job_ended(row.trace, row.id, began=row.created_at, state=row.state)
    return _answer(row, 202)


@router.post(
    "/{job_id}/retry",
    status_code=202,
    response_model=Job,
    responses=documented(resources.JobNotFound, resources.JobNotRetryable, *AUTH_ERRORS),
)
def retry_job(job_id: str, parts: Parts, caller: Submitter) -> Response:
    """Let a failed or cancelled job go on from its last finished stage."""
    with parts.sessions.begin() as session:
        row = service.retry(session, job_id, hub_caller(caller))
    _announce(parts, row)
    return _answer(row, 202)
