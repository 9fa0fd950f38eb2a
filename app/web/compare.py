"""The page that compares jobs."""

from typing import Annotated, Final

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse

from app.api.deps import Parts, Reader, hub_caller
from app.jobs import repository, service
from app.jobs.access import visible_to
from app.jobs.states import State
from app.jobs.views import Job
from app.report.comparison import MOST_JOBS, compare
from app.report.plots import pareto
from app.web.rendering import render
from app.web.routing import PageRoute

router = APIRouter(include_in_schema=False, default_response_class=HTMLResponse, route_class=PageRoute)
_NEWEST: Final = 50
_OTHERS_SHOWN: Final = 20


@router.get("/compare")
def compare_jobs(
    request: Request,
    parts: Parts,
    reader: Reader,
    job: Annotated[list[str] | None, Query(max_length=MOST_JOBS, description="Ids of jobs.")] = None,
) -> HTMLResponse:
    """Several jobs in one table, with the front that none of them is beaten on."""
    with parts.read_sessions() as session:
        who = hub_caller(reader)
        rows = [service.find(session, id_, who) for id_ in dict.fromkeys(job or ())]
        newest = repository.page(session, where=visible_to(who), limit=_NEWEST, state=State.SUCCEEDED)
    comparison = compare([Job.of(row).model_dump(mode="json") for row in rows])
    plots = [plot for draw in (pareto.speed, pareto.size) if (plot := draw(comparison)) is not None]
    chosen = {row.id for row in rows}
    others = [row for row in newest if row.id not in chosen][:_OTHERS_SHOWN]
    return render(request, "compare.html", comparison=comparison, plots=plots, others=others)
