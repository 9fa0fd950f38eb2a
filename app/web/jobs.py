"""The page that lists jobs. It reads what the API would answer and renders it; every change goes through the API."""

from typing import Annotated, Final
from urllib.parse import urlencode

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import HTMLResponse

from app.api.deps import Parts, Reader, hub_caller
from app.jobs import listing, service
from app.jobs.listing import Wanted, meets
from app.jobs.states import State
from app.web.parts import part_of
from app.web.routing import PageRoute

router = APIRouter(include_in_schema=False, default_response_class=HTMLResponse, route_class=PageRoute)
_ON_A_PAGE: Final = 50


@router.get("/")
def jobs(
    request: Request,
    parts: Parts,
    reader: Reader,
    state: Annotated[str, Query(max_length=16)] = "",
    model: Annotated[str, Query(max_length=200)] = "",
    label: Annotated[str, Query(max_length=400)] = "",
    owner: Annotated[str, Query(max_length=64)] = "",
    cursor: Annotated[str | None, Query(max_length=200)] = None,
    part: Annotated[str, Query(max_length=16)] = "",
    if_none_match: Annotated[str | None, Header()] = None,
) -> Response:
    """Jobs, newest first, in pages; with `part=list` the list alone, which a page that is open asks for again."""
    who = hub_caller(reader)
    chosen = state if state in list(State) else ""
    wanted = Wanted(model.strip(), owner if owner and who.sees_all else None, labels_in(label))
    with parts.read_sessions() as session:
        page = service.page(
            session,
            who,
            state=chosen or None,
            model=None,
            labels={},
            cursor=cursor,
            limit=_ON_A_PAGE,
            also=meets(wanted),
        )
        counts = listing.state_counts(session, who, wanted)
        owners = listing.owners(session) if who.sees_all else {}
    filters = {"state": chosen, "model": model, "label": label, "owner": owner}
    given = {name: value for name, value in filters.items() if value}
    return part_of(
        request,
        "job_list.html" if part else "jobs.html",
        [(row.id, row.version) for row in page.rows] + sorted(counts.items()),
        if_none_match=if_none_match if part else None,
        jobs=page.rows,
        counts={name: counts.get(name, 0) for name in State},
        filters=filters,
        filtered=bool(given),
        owners=owners,
        others={key: value for key, value in given.items() if key != "state"},
        newest=f"/?{urlencode(given)}" if cursor else None,
        older=f"/?{urlencode({**given, 'cursor': page.next_cursor})}" if page.next_cursor else None,
    )


def labels_in(text: str) -> dict[str, str]:
    """The labels in `team=research, ci_run=12`; what is no `key=value` is looked for and found nowhere."""
    pairs = [part.strip().partition("=") for part in text.split(",") if part.strip()]
    return {key.strip(): value.strip() for key, _, value in pairs}
