"""Routes of the pages. They read what the API would answer and render it; every change goes through the API."""

from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse
from sqlalchemy.orm import Session, sessionmaker

from app.api.deps import Reader, hub_caller, services
from app.errors import JobNotFound
from app.jobs import repository, service
from app.jobs.access import visible_to
from app.jobs.states import FINAL, STAGES, State
from app.jobs.views import Job
from app.report.comparison import MOST_JOBS, compare
from app.report.page import PLOT_STYLE
from app.report.plots import pareto
from app.web.rendering import render

router = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)
_JOBS_SHOWN = 50
_OTHERS_SHOWN = 20


def _sessions(request: Request) -> sessionmaker[Session]:
    return services(request).read_sessions


@router.get("/")
def jobs(request: Request, reader: Reader) -> HTMLResponse:
    """The newest jobs."""
    with _sessions(request)() as session:
        rows = repository.page(session, where=visible_to(hub_caller(reader)), limit=_JOBS_SHOWN)
    return render(request, "jobs.html", jobs=rows)


@router.get("/jobs/{job_id}")
def job(request: Request, reader: Reader, job_id: str) -> HTMLResponse:
    """One job, live."""
    with _sessions(request)() as session:
        row = repository.get(session, job_id, where=visible_to(hub_caller(reader)))
    if row is None:
        raise JobNotFound(f"There is no job {job_id!r}; the start page lists those there are.")
    return render(request, "job.html", job=row, stages=STAGES, final=row.state in FINAL)


@router.get("/compare")
def compare_jobs(
    request: Request,
    reader: Reader,
    job: Annotated[list[str] | None, Query(max_length=MOST_JOBS, description="Ids of jobs.")] = None,
) -> HTMLResponse:
    """Several jobs in one table, with the front that none of them is beaten on."""
    with _sessions(request)() as session:
        who = hub_caller(reader)
        rows = [service.find(session, id_, who) for id_ in dict.fromkeys(job or ())]
        newest = repository.page(session, where=visible_to(who), limit=_JOBS_SHOWN, state=State.SUCCEEDED)
    comparison = compare([Job.of(row).model_dump(mode="json") for row in rows])
    plots = [plot for draw in (pareto.speed, pareto.size) if (plot := draw(comparison)) is not None]
    chosen = {row.id for row in rows}
    others = [row for row in newest if row.id not in chosen][:_OTHERS_SHOWN]
    return render(request, "compare.html", comparison=comparison, plots=plots, others=others, plot_style=PLOT_STYLE)
