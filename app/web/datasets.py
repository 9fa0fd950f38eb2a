"""The page of the data sets: those there are, and a form to upload another."""

from typing import Annotated, Final

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse

from app.api.deps import Parts, Reader
from app.datasets import service
from app.web.rendering import render
from app.web.routing import PageRoute

router = APIRouter(include_in_schema=False, default_response_class=HTMLResponse, route_class=PageRoute)
_ON_A_PAGE: Final = 100


@router.get("/datasets")
def datasets(
    request: Request, parts: Parts, _reader: Reader, cursor: Annotated[str | None, Query(max_length=64)] = None
) -> HTMLResponse:
    """The data sets in the order of their names."""
    with parts.read_sessions() as session:
        rows = service.page(session, after=cursor, limit=_ON_A_PAGE + 1)
    shown = rows[:_ON_A_PAGE]
    return render(
        request,
        "datasets.html",
        datasets=shown,
        more=shown[-1].id if len(rows) > _ON_A_PAGE else None,
        largest=parts.settings.max_dataset_bytes,
    )
