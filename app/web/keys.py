"""The page of API keys, for scope `admin`: those there are, a form that makes one, and a button that revokes one."""

from typing import Annotated, Final

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse

from app.api.deps import Admin, Parts
from app.auth import administration, keys
from app.auth.bounds import LONGEST_DAYS, LONGEST_NAME, MOST, MOST_BYTES
from app.auth.keys import KeyState
from app.auth.scopes import Scope
from app.web.rendering import render
from app.web.routing import PageRoute

router = APIRouter(include_in_schema=False, default_response_class=HTMLResponse, route_class=PageRoute)
_ON_A_PAGE: Final = 50


@router.get("/keys")
def api_keys(
    request: Request,
    parts: Parts,
    admin: Admin,
    state: Annotated[str, Query(max_length=16)] = "",
    cursor: Annotated[str | None, Query(max_length=200)] = None,
    part: Annotated[str, Query(max_length=16)] = "",
) -> HTMLResponse:
    """Keys, newest first; with `part=list` the list alone, which a page that has changed something asks for again."""
    chosen = KeyState(state) if state in list(KeyState) else KeyState.VALID
    with parts.read_sessions() as session:
        page = administration.page(session, state=chosen, cursor=cursor, limit=_ON_A_PAGE)
        counts = keys.state_counts(session)
    return render(
        request,
        "key_list.html" if part else "keys.html",
        keys=[row for row, _ in page.rows],
        counts={name: counts.get(name, 0) for name in KeyState},
        state=chosen,
        own=admin.owner,
        scopes=list(Scope),
        longest_name=LONGEST_NAME,
        longest_days=LONGEST_DAYS,
        most=MOST,
        most_bytes=MOST_BYTES,
        older=f"/keys?state={chosen}&cursor={page.next_cursor}" if page.next_cursor else None,
    )
