"""The login: a person types an API key once, and the browser holds a cookie that stands for it."""

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Form, Query, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from fastapi.routing import APIRoute

from app.api.audit import note_holder
from app.api.deps import Parts, Reader, Services
from app.auth import ended_logins, keys
from app.auth.logins import COOKIE, SECONDS
from app.auth.loopback import sent_by_own_page
from app.errors.requests import CrossSiteRequest, InvalidCredentials
from app.web.rendering import render
from app.web.routing import PageRoute, local_path

router = APIRouter(include_in_schema=False, default_response_class=HTMLResponse, route_class=PageRoute)

Next = Annotated[str | None, Query(alias="next", max_length=2000)]


@router.get("/login")
def login_form(request: Request, parts: Parts, address: Next = None) -> Response:
    """The form; where the service has no keys there is nothing to log in to."""
    with parts.read_sessions() as session:
        needed = keys.exist(session)
    if not needed:
        return RedirectResponse(local_path(address), HTTPStatus.SEE_OTHER)
    return render(request, "login.html", next=local_path(address), wrong=False)


@router.post("/login")
def log_in(
    request: Request,
    parts: Parts,
    key: Annotated[str, Form(max_length=200)] = "",
    address: Annotated[str | None, Form(alias="next", max_length=2000)] = None,
) -> Response:
    """Give the browser a login for a valid key, and lead on to where it wanted to go."""
    _check_own_page(request)  # else another site could log a person in with a key of its own
    with parts.read_sessions() as session:
        row = keys.find(session, key.strip())
    if row is None:
        return render(request, "login.html", status=HTTPStatus.FORBIDDEN, next=local_path(address), wrong=True)
    note_holder(request, row)
    return _logged_in(request, parts, row.id, address)


def by_browser_dialog(request: Request, parts: Parts, reader: Reader, address: Next = None) -> Response:
    """For who would rather type the key into the browser's own dialog, which opens at the challenge of this route.

    The browser would send that key with what lies below `/login/` only (RFC 7617, section 2.2): it gets a login too.
    """
    if not reader.owner:
        return RedirectResponse(local_path(address), HTTPStatus.SEE_OTHER)
    if "authorization" not in request.headers:  # a login would make another one, which logging out leaves
        raise InvalidCredentials("Type an API key into the browser's dialog, or into the form at /login.")
    return _logged_in(request, parts, reader.owner, address)


def _logged_in(request: Request, parts: Services, key_id: str, address: str | None) -> Response:
    answer = RedirectResponse(local_path(address), HTTPStatus.SEE_OTHER)
    # Lax and not Strict: a link to a job in a mail shall open the job. Changes need our own page's Origin as well.
    answer.set_cookie(
        COOKIE,
        parts.logins.issue(key_id),
        max_age=SECONDS,
        httponly=True,
        samesite="lax",
        secure=_is_https(request, parts.settings.public_url),
    )
    return answer


# No page: without a key it is answered 401, and not led to the form. POST alone: a link of another site, with a key of
# its own in the address, would log a person in with that.
router.add_api_route("/login/browser", by_browser_dialog, methods=["POST"], route_class_override=APIRoute)


@router.post("/logout")
def log_out(request: Request, parts: Parts) -> Response:
    """End the login for whoever has a copy of its cookie, and take the cookie away."""
    _check_own_page(request)
    login = parts.logins.read(request.headers)
    if login is not None:
        with parts.sessions.begin() as session:
            ended_logins.end(session, login)
    answer = RedirectResponse("/login", HTTPStatus.SEE_OTHER)
    answer.delete_cookie(COOKIE, httponly=True, samesite="lax")
    return answer


def _check_own_page(request: Request) -> None:
    if not sent_by_own_page(request.headers):
        raise CrossSiteRequest("Log in and out on this service's own page, /login.")


def _is_https(request: Request, public_url: str) -> bool:
    return request.url.scheme == "https" or public_url.startswith("https://")
