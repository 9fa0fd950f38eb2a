"""The page of one job, live: rendered as it stands, and drawn on by scripts from the events that follow."""

import json
from typing import Any, Final

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from app.api.deps import Parts, Reader, Services, hub_caller
from app.db.models import JobEventRow
from app.jobs import service, workers
from app.jobs.course import LAST_EVENTS, course
from app.jobs.marks import Mark
from app.jobs.states import FINAL, STAGES, State
from app.jobs.views import Job, JobFile
from app.jobs.waiting import waiting_sentence
from app.storage.artefacts import ArtefactNotFound
from app.storage.blobs import StorageError
from app.web.commands import as_cli, as_curl
from app.web.rendering import render
from app.web.routing import PageRoute

router = APIRouter(include_in_schema=False, default_response_class=HTMLResponse, route_class=PageRoute)
_LEFT_OUT: Final = frozenset({"outputs", "tokens", "learning_rate"})
"""Of events: what no picture and no line of the log shows."""


@router.get("/jobs/{job_id}")
def job(request: Request, parts: Parts, reader: Reader, job_id: str) -> HTMLResponse:
    """One job: its stages, how training goes, which windows count, its log, and what came out."""
    with parts.read_sessions() as session:
        row = service.find(session, job_id, hub_caller(reader))
        so_far = course(session, row.id, Mark.of(row).events)
        there = [group.memory_bytes for group in workers.there(session)] if row.state == State.QUEUED else []
    asked = Job.of(row).spec.model_dump(mode="json", exclude_none=True)
    address = (parts.settings.public_url or str(request.base_url)).rstrip("/")
    live = {
        "id": row.id,
        "state": row.state,
        "last": so_far.last,
        "tail": LAST_EVENTS,
        "stages": STAGES,
        "events": [_shown(event) for event in so_far.events],
    }
    return render(
        request,
        "job.html",
        job=row,
        stages=STAGES,
        final=row.state in FINAL,
        waiting=waiting_sentence(row.required_memory_bytes, there) if row.state == State.QUEUED else "",
        live=live,
        files=_files(parts, row.id) if row.state == State.SUCCEEDED else [],
        curl=as_curl(address, asked, keyed=bool(reader.owner)),
        cli=as_cli(address, asked, keyed=bool(reader.owner)),
        request_json=json.dumps(asked, indent=2, ensure_ascii=False),
        address=address,
    )


def _shown(event: JobEventRow) -> dict[str, Any]:
    data = {name: value for name, value in event.data.items() if name not in _LEFT_OUT}
    return {"id": event.seq, "event": event.kind, "time": event.time.timestamp(), "data": data}


def _files(parts: Services, job_id: str) -> list[JobFile]:
    """The job's artefacts; none while the store is away, because the rest of the page does not need it."""
    try:
        manifest = parts.artefacts.manifest(job_id)
    except (ArtefactNotFound, StorageError, OSError):
        return []
    return [JobFile(path=name, size=file.size, sha256=file.sha256) for name, file in sorted(manifest.items())]
