"""What all pages have in common: a policy that lets only their own files act, and answers that people can read.

A program that asks for a page gets the same problem documents as from the API; a browser gets a page in their place,
and the login where a key is needed.
"""

from collections.abc import Callable, Coroutine
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import quote

from fastapi import Request, Response
from fastapi.responses import RedirectResponse
from fastapi.routing import APIRoute
from sqlalchemy.exc import SQLAlchemyError

from app.api.database_problems import problem_of, read_sessions_of
from app.errors import ServiceError
from app.errors.requests import InsufficientScope, InvalidCredentials, NotFound
from app.web.rendering import render

_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS: Final = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    # Not `no-referrer`: browsers would then hide the origin of our own forms from us too.
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
    "Vary": "Accept, Authorization, Cookie",
}


class NothingHere(NotFound):
    """A page that is not there; its words are for people."""

    def __init__(self, detail: str, *links: tuple[str, str]) -> None:
        """`links` are addresses and words of pages that may be meant."""
        super().__init__(detail)
        self.links = links


class PageRoute(APIRoute):
    """A route whose answers are pages."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler, with the policy on every answer and pages for what goes wrong."""
        handle = super().get_route_handler()

        async def handle_page(request: Request) -> Response:
            try:
                answer = await handle(request)
            except ServiceError as error:
                if not wants_page(request):
                    raise
                answer = refusal(request, error)
            except SQLAlchemyError as error:
                # Programs are answered by the handler of the whole application.
                problem = await problem_of(error, read_sessions_of(request.app)) if wants_page(request) else None
                if problem is None:
                    raise
                answer = refusal(request, problem)
            return dressed(answer)

        return handle_page


def dressed(answer: Response) -> Response:
    """The answer with the headers that all pages have."""
    for name, value in _HEADERS.items():
        answer.headers.setdefault(name, value)
    return answer


def local_path(address: str | None) -> str:
    """The address if it is a path of this service, else the start page: nobody is sent elsewhere after a login."""
    if address is None or not address.startswith("/") or address.startswith("//"):
        return "/"
    return "/" if any(ord(letter) <= ord(" ") or letter in "\\\x7f" for letter in address) else address


def wants_page(request: Request) -> bool:
    """Whether a browser asks."""
    return "text/html" in request.headers.get("accept", "").lower()


def refusal(request: Request, error: ServiceError) -> Response:
    """The page in place of one that is refused, or the way to the login."""
    query = f"?{request.url.query}" if request.url.query else ""
    login = f"/login?next={quote(request.url.path + query, safe='/')}"
    # A wrong key in `Authorization` came from the browser's own dialog, which only another challenge opens again.
    if isinstance(error, InvalidCredentials) and "authorization" not in request.headers:
        return RedirectResponse(login, HTTPStatus.SEE_OTHER)
    if error.status == HTTPStatus.UNAUTHORIZED:
        raise error
    other_key = login if isinstance(error, InsufficientScope) else None
    answer = render(request, "refusal.html", status=error.status, error=error, other_key=other_key)
    answer.headers.update(error.headers)
    return answer
