"""What a job has left behind: its report and its files."""

from pathlib import PurePosixPath
from typing import Annotated, Any

from fastapi import APIRouter, Header, Response
from fastapi.responses import FileResponse

from app import errors
from app.api.deps import Parts, Reader, Services
from app.api.jobs import AUTH_ERRORS
from app.api.negotiation import preferred
from app.api.problems import documented
from app.hub.byte_range import etag_matches
from app.jobs import service
from app.jobs.states import State
from app.jobs.views import JobFile, JobFileList
from app.storage.artefacts import ArtefactNotFound

router = APIRouter(prefix="/v1/jobs/{job_id}", tags=["jobs"])

REPORT = "report.json"
_TYPES = {".json": "application/json", ".jsonl": "application/x-ndjson", ".log": "text/plain; charset=utf-8"}


@router.get(
    "/report",
    response_model=dict[str, Any],
    responses={
        304: {"description": "The report is as `If-None-Match` says."},
        **documented(errors.JobNotFound, errors.FileNotFound, errors.NotAcceptable, *AUTH_ERRORS),
    },
)
def get_report(
    job_id: str,
    parts: Parts,
    _caller: Reader,
    accept: Annotated[str | None, Header()] = None,
    if_none_match: Annotated[str | None, Header()] = None,
) -> Response:
    """Every number of the job: metrics, scores, training, verification, stage seconds, samples, environment."""
    preferred(accept, ("application/json",))
    return _file(parts, job_id, REPORT, if_none_match)


@router.get("/files", responses=documented(errors.JobNotFound, errors.FileNotFound, *AUTH_ERRORS))
def list_files(job_id: str, parts: Parts, _caller: Reader) -> JobFileList:
    """The job's artefacts, there once it has succeeded; the checkpoint itself is in the hub."""
    _check_succeeded(parts, job_id)
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
        **documented(errors.JobNotFound, errors.FileNotFound, *AUTH_ERRORS),
    },
)
def get_file(
    job_id: str,
    path: str,
    parts: Parts,
    _caller: Reader,
    if_none_match: Annotated[str | None, Header()] = None,
) -> Response:
    """One artefact; its ETag is its sha256."""
    return _file(parts, job_id, path, if_none_match)


def _check_succeeded(parts: Services, job_id: str) -> None:
    # Artefacts are written just before the transaction that makes the job succeed: until that one is through, what lies
    # there belongs to an attempt that may still be lost.
    with parts.read_sessions() as session:
        state = service.find(session, job_id).state
    if state != State.SUCCEEDED:
        raise errors.FileNotFound(
            f"Job {job_id} is {state}; its report and its files come with success.", parameter="job_id"
        )


def _file(parts: Services, job_id: str, path: str, if_none_match: str | None) -> Response:
    _check_succeeded(parts, job_id)
    try:
        local = parts.artefacts.path(job_id, path)
        entry = parts.artefacts.manifest(job_id)[path]
    except (ArtefactNotFound, KeyError):
        raise errors.FileNotFound(
            f"Job {job_id} has no file {path[:200]!r}; GET /v1/jobs/{job_id}/files lists what it has.",
            parameter="path",
        ) from None
    etag = f'"{entry.sha256}"'
    headers = {"ETag": etag, "X-Content-Type-Options": "nosniff", "Cache-Control": "no-cache"}
    if etag_matches(if_none_match, etag):
        return Response(status_code=304, headers=headers)
    media_type = _TYPES.get(PurePosixPath(path).suffix, "application/octet-stream")
    return FileResponse(local, headers=headers, media_type=media_type)
