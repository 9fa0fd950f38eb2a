"""Routes of the pages. They read what the API would answer and render it; every change goes through the API."""

from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import HTMLResponse
from fastapi.templating import Jinja2Templates
from sqlalchemy.orm import Session, sessionmaker

from app.api.deps import Reader, hub_caller, require, services
from app.auth.scopes import Scope
from app.errors import JobNotFound
from app.hub import directory
from app.jobs import repository, service
from app.jobs.states import FINAL, STAGES, State
from app.jobs.views import Job
from app.report import quantities
from app.report.comparison import MOST_JOBS, compare
from app.report.page import PLOT_STYLE
from app.report.plots import pareto

router = APIRouter(
    include_in_schema=False, default_response_class=HTMLResponse, dependencies=[Depends(require(Scope.READ))]
)
_templates = Jinja2Templates(Path(__file__).parent / "templates")
_templates.env.filters |= {name: getattr(quantities, name) for name in ("ratio", "percent", "digits", "seconds")}
_JOBS_SHOWN = 50
_OTHERS_SHOWN = 20
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


@router.get("/compare")
def compare_jobs(
    request: Request, job: Annotated[list[str] | None, Query(max_length=MOST_JOBS, description="Ids of jobs.")] = None
) -> HTMLResponse:
    """Several jobs in one table, with the front that none of them is beaten on."""
    with _sessions(request)() as session:
        rows = [service.find(session, id_) for id_ in dict.fromkeys(job or ())]
        newest = repository.page(session, limit=_JOBS_SHOWN, state=State.SUCCEEDED)
    comparison = compare([Job.of(row).model_dump(mode="json") for row in rows])
    plots = [plot for draw in (pareto.speed, pareto.size) if (plot := draw(comparison)) is not None]
    chosen = {row.id for row in rows}
    others = [row for row in newest if row.id not in chosen][:_OTHERS_SHOWN]
    return _render(request, "compare.html", comparison=comparison, plots=plots, others=others, plot_style=PLOT_STYLE)


@router.get("/models")
def models(request: Request, reader: Reader) -> HTMLResponse:
    """The repositories of the hub, with the lines that use them."""
    with _sessions(request)() as session:
        shown = directory.page_of_repos(session, visible_to=hub_caller(reader).visible_to, limit=_MODELS_SHOWN)
        names = [repo.name for repo in shown]
    return _render(request, "models.html", names=names, endpoint=str(request.base_url).rstrip("/"))
