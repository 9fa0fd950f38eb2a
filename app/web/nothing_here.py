"""What a browser finds where nothing is: the page of the model that the address names, or a page that says so.

Programs get the problem document as before.
"""

from http import HTTPStatus
from urllib.parse import quote

from fastapi import FastAPI, Request, Response
from fastapi.responses import RedirectResponse
from starlette.exceptions import HTTPException

from app.hub.errors import BadName
from app.hub.names import check_repo_name
from app.web.routing import NothingHere, dressed, refusal, wants_page


def install_nothing_here(app: FastAPI) -> None:
    """Answer browsers on their own; whatever else goes wrong is for the handler that is there already."""
    for_programs = app.exception_handlers[HTTPException]

    async def answer(request: Request, error: Exception) -> Response:
        missing = isinstance(error, HTTPException) and error.status_code == HTTPStatus.NOT_FOUND
        if not (missing and request.method == "GET" and wants_page(request)):
            found: Response = await for_programs(request, error)  # type: ignore[misc]
            return found
        name = _model_at(request)
        if name is not None:  # as on the Hub itself, where a model's page is at its name
            return dressed(RedirectResponse(f"/models/{quote(name)}", HTTPStatus.FOUND))
        return dressed(refusal(request, NothingHere(f"This service has no page at {request.url.path!r}.")))

    app.add_exception_handler(HTTPException, answer)


def _model_at(request: Request) -> str | None:
    """The name of a repository that the path is, if it can be one and is none of the service's own addresses."""
    own = {route.path.split("/")[1] for router in request.app.state.routers for route in router.routes}
    name = request.url.path.strip("/")
    try:
        return None if name.split("/")[0] in own else check_repo_name(name)
    except BadName:
        return None
