"""The page that makes a job: a form out of the request's schema, with the plan beside it while somebody types."""

from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse

from app.api.deps import Parts, Submitter, hub_caller
from app.core import defaults
from app.core.tasks import PAPER_SUITE
from app.datasets import service as datasets
from app.hub import directory
from app.jobs import service
from app.jobs.views import Job
from app.web import form
from app.web.commands import as_curl
from app.web.rendering import render
from app.web.routing import PageRoute

router = APIRouter(include_in_schema=False, default_response_class=HTMLResponse, route_class=PageRoute)
_MOST_CHOICES: Final = 500


@router.get("/new")
def new_job(
    request: Request,
    parts: Parts,
    submitter: Submitter,
    origin: Annotated[str | None, Query(alias="from", max_length=64)] = None,
    model: Annotated[str | None, Query(max_length=200)] = None,
) -> HTMLResponse:
    """The form, empty, for a model, or filled in as another job was."""
    who = hub_caller(submitter)
    start: dict[str, Any] = {"model": {"repo": model}} if model else {}
    with parts.read_sessions() as session:
        if origin:
            start = Job.of(service.find(session, origin, who)).spec.model_dump(mode="json", exclude_none=True)
        repos = directory.page_of_repos(session, visible_to=who.visible_to, order="last_modified", limit=_MOST_CHOICES)
        texts = datasets.page(session, after=None, limit=_MOST_CHOICES)
    address = (parts.settings.public_url or str(request.base_url)).rstrip("/")
    return render(
        request,
        "new.html",
        fields=form.fields(),
        gates=form.gates(),
        further=form.further(),
        models=[repo.name for repo in repos],
        texts=texts,
        self_text=defaults.SELF_TEXT,
        kind=defaults.KIND,
        suite=PAPER_SUITE,
        start=start,
        curl=as_curl(address, {}, keyed=bool(submitter.owner)),
    )
