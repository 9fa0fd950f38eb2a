"""Routes of the pages. They read what the API would answer and render it; every change goes through the API."""

from pathlib import Path
from typing import Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import HTMLResponse
from fastapi.templating import Jinja2Templates
from sqlalchemy.orm import Session, sessionmaker

from app.api.deps import Reader, hub_caller, require, services
from app.auth.scopes import Scope
from app.errors import JobNotFound
from app.hub import directory
from app.jobs import repository
from app.jobs.states import FINAL, STAGES

router = APIRouter(
    include_in_schema=False, default_response_class=HTMLResponse, dependencies=[Depends(require(Scope.READ))]
)
_templates = Jinja2Templates(Path(__file__).parent / "templates")
_JOBS_SHOWN = 50
_MODELS_SHOWN = 1000


def _sessions(request: Request) -> sessionmaker[Session]:
    return services(request).read_sessions


def _render(request: Request, template: str, **values: Any) -> HTMLResponse:
    return _templates.TemplateResponse(request, template, values)


@router.get("/")
def jobs(request: Request) -> HTMLResponse:
    """The newest jobs."""
    with _sessions(request)() as session:
        rows = repository.page(session, limit=_JOBS_SHOWN)
    return _render(request, "jobs.html", jobs=rows)


@router.get("/jobs/{job_id}")
def job(request: Request, job_id: str) -> HTMLResponse:
    """One job, live."""
    with _sessions(request)() as session:
        row = repository.get(session, job_id)
    if row is None:
        raise JobNotFound(f"There is no job {job_id!r}; the start page lists those there are.")
    return _render(request, "job.html", job=row, stages=STAGES, final=row.state in FINAL)


@router.get("/models")
def models(request: Request, reader: Reader) -> HTMLResponse:
    """The repositories of the hub, with the lines that use them."""
    with _sessions(request)() as session:
        shown = directory.page_of_repos(session, visible_to=hub_caller(reader).visible_to, limit=_MODELS_SHOWN)
        names = [repo.name for repo in shown]
    return _render(request, "models.html", names=names, endpoint=str(request.base_url).rstrip("/"))
