"""What a job has left behind: its report and its files."""

import json
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

from fastapi import APIRouter, Header, Response
from fastapi.responses import FileResponse, HTMLResponse

from app.api.deps import Parts, Reader, Services, hub_caller
from app.api.jobs import AUTH_ERRORS
from app.api.negotiation import preferred
from app.api.problems import documented
from app.core import tasks
from app.datasets import repository as datasets
from app.errors import requests, resources
from app.hub.access import Caller
from app.hub.byte_range import etag_matches
from app.jobs import service
from app.jobs.states import State
from app.jobs.views import Job, JobFile, JobFileList
from app.report.page import HEADERS, PAGE_HASH, render
from app.report.versions import UnknownVersion
from app.storage.artefacts import ArtefactFile, ArtefactNotFound

router = APIRouter(prefix="/v1/jobs/{job_id}", tags=["jobs"])

REPORT = "report.json"
_TYPES = {".json": "application/json", ".jsonl": "application/x-ndjson", ".log": "text/plain; charset=utf-8"}


@router.get(
    "/report",
    response_model=dict[str, Any],
    responses={
        200: {
            "description": "JSON of the form that /v1/schemas/report-1.json describes, or a page with plots.",
            "content": {"text/html": {"schema": {"type": "string"}}},
        },
        304: {"description": "The report is as `If-None-Match` says."},
        **documented(resources.JobNotFound, resources.FileNotFound, requests.NotAcceptable, *AUTH_ERRORS),
    },
)
def get_report(
    job_id: str,
    parts: Parts,
    caller: Reader,
    accept: Annotated[str | None, Header()] = None,
    if_none_match: Annotated[str | None, Header()] = None,
) -> Response:
    """Every number of the job: metrics, scores, training, verification, stage seconds, samples, environment.

    With `Accept: text/html` a page with plots that needs nothing else and can be saved, mailed and printed.
    """
    if preferred(accept, ("application/json", "text/html")) == "text/html":
        return _page(parts, job_id, hub_caller(caller), if_none_match)
    answer = _file(parts, job_id, hub_caller(caller), REPORT, if_none_match)
    answer.headers["Vary"] = "Accept"
    return answer


def _page(parts: Services, job_id: str, who: Caller, if_none_match: str | None) -> Response:
    path, entry = _artefact(parts, job_id, who, REPORT)
    etag = f'"{entry.sha256[:32]}-{PAGE_HASH[:16]}"'
    headers = HEADERS | {"ETag": etag, "Vary": "Accept"}
    if etag_matches(if_none_match, etag):
        return Response(status_code=304, headers=headers)
    with parts.read_sessions() as session:
        job = Job.of(service.find(session, job_id, who)).model_dump(mode="json")
        spec = job["spec"]
        evaluation = spec["evaluation"]
        own = [task for task in evaluation.get("tasks") or () if tasks.find(task) is None]
        used = [spec["calibration"]["dataset"], *(evaluation["perplexity"] or ()), *own]
        names = {row.id: row.name for id_ in used if id_ and (row := datasets.get(session, id_)) is not None}
    try:
        page = render(json.loads(path.read_text(encoding="utf-8")), job, names)
    except UnknownVersion as error:
        raise requests.NotAcceptable(f"{error} Send `Accept: application/json` for the report as it is.") from None
    return HTMLResponse(page, headers=headers)


@router.get("/files", responses=documented(resources.JobNotFound, resources.FileNotFound, *AUTH_ERRORS))
def list_files(job_id: str, parts: Parts, caller: Reader) -> JobFileList:
    """The job's artefacts, there once it has succeeded; the checkpoint itself is in the hub."""
    _check_succeeded(parts, job_id, hub_caller(caller))
    manifest = parts.artefacts.manifest(job_id)
    return JobFileList(
        items=[JobFile(path=name, size=file.size, sha256=file.sha256) for name, file in sorted(manifest.items())]
    )


@router.get(
    "/files/{path:path}",
    response_class=FileResponse,
    responses={
        206: {"description": "The part that `Range` names."},
        304: {"description": "The file is as `If-None-Match` says."},
        416: {"description": "No byte of the file is in `Range`."},
        **documented(resources.JobNotFound, resources.FileNotFound, *AUTH_ERRORS),
    },
)
def get_file(
    job_id: str,
    path: str,
    parts: Parts,
    caller: Reader,
    if_none_match: Annotated[str | None, Header()] = None,
) -> Response:
    """One artefact; its ETag is its sha256."""
    return _file(parts, job_id, hub_caller(caller), path, if_none_match)


def _check_succeeded(parts: Services, job_id: str, who: Caller) -> None:
    # Artefacts are written just before the transaction that makes the job succeed: until that one is through, what lies
    # there belongs to an attempt that may still be lost.
    with parts.read_sessions() as session:
        state = service.find(session, job_id, who).state
    if state != State.SUCCEEDED:
        raise resources.FileNotFound(
            f"Job {job_id} is {state}; its report and its files come with success.", parameter="job_id"
        )


def _artefact(parts: Services, job_id: str, who: Caller, path: str) -> tuple[Path, ArtefactFile]:
    _check_succeeded(parts, job_id, who)
    try:
        return parts.artefacts.path(job_id, path), parts.artefacts.manifest(job_id)[path]
    except (ArtefactNotFound, KeyError):
        raise resources.FileNotFound(
            f"Job {job_id} has no file {path[:200]!r}; GET /v1/jobs/{job_id}/files lists what it has.",
            parameter="path",
        ) from None


def _file(parts: Services, job_id: str, who: Caller, path: str, if_none_match: str | None) -> Response:
    local, entry = _artefact(parts, job_id, who, path)
    etag = f'"{entry.sha256}"'
    headers = {"ETag": etag, "X-Content-Type-Options": "nosniff", "Cache-Control": "no-cache"}
    if etag_matches(if_none_match, etag):
        return Response(status_code=304, headers=headers)
    media_type = _TYPES.get(PurePosixPath(path).suffix, "application/octet-stream")
    return FileResponse(local, headers=headers, media_type=media_type)
