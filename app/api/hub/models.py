"""What models there are, what each is, and who asks."""

import base64
import binascii
import json
from datetime import UTC, datetime
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import Query, Request, Response
from fastapi.responses import JSONResponse, RedirectResponse

from app.api.hub.routing import CallerOf, Context, RepoName, RepoRoutes, hub_router, next_link, reading
from app.auth.scopes import Scope
from app.db.models import RepoRow
from app.hub import directory, repository, wire
from app.hub.access import writable
from app.hub.card import Card, model_tags, read_card
from app.hub.directory import Behind, Order
from app.hub.errors import BadRequest, InvalidCredentials
from app.hub.names import check_repo_name
from app.hub.raw_path import decode_segment
from app.hub.revisions import DEFAULT_BRANCH, resolve

LIST_PAGE = 250
FULL_LIST_PAGE = 100
_ORDERS: dict[str, Order] = {
    "lastModified": "last_modified",
    "last_modified": "last_modified",
    "createdAt": "created_at",
    "created_at": "created_at",
    # Nobody counts these here: all are equal, and the newest come first.
    "downloads": "last_modified",
    "likes": "last_modified",
    "trendingScore": "last_modified",
    "trending_score": "last_modified",
}
_ROLES = {Scope.READ: "read", Scope.SUBMIT: "write", Scope.ADMIN: "write"}

routes = RepoRoutes()
router = hub_router()


@routes.route("/api/models/{repo}/revision/{rev}")
@routes.route("/api/models/{repo}")
def model_info(
    context: Context,
    who: CallerOf,
    name: RepoName,
    rev: str | None = None,
    blobs: bool = False,
    securityStatus: bool = False,  # noqa: N803 - the Hub's name
    expand: Annotated[list[str], Query()] = [],  # noqa: B006 - FastAPI copies it
) -> Response:
    """A repository at a revision (default: `main`, or no files where nothing has been published there yet)."""
    revision = None if rev is None else decode_segment(rev)
    with reading(context, who, name, revision, files=False) as (session, repo):
        if revision is None:
            commit = repository.commit_of_ref(session, repo.id, "branch", DEFAULT_BRANCH)
        else:
            commit = resolve(session, repo, revision)
        files = repository.files(session, commit) if commit else []
        indexed = directory.tags_of(session, [repo.id])[repo.id] if rev is None else []
    card = read_card(context.store, files)
    tags = list(dict.fromkeys([*model_tags(files, card), *indexed]))
    return JSONResponse(
        wire.model_info(repo, commit, files, tags=tags, card=card, blobs=blobs, security=securityStatus, expand=expand)
    )


@router.get("/api/models")
def list_models(
    request: Request,
    context: Context,
    who: CallerOf,
    search: str | None = None,
    author: str | None = None,
    filter: Annotated[list[str], Query()] = [],  # noqa: B006 - the Hub's name; FastAPI copies it
    pipeline_tag: str | None = None,
    gated: bool | None = None,
    sort: str | None = None,
    full: bool = False,
    expand: Annotated[list[str], Query()] = [],  # noqa: B006
    cursor: str | None = None,
    limit: Annotated[int, Query(ge=1)] = LIST_PAGE,
) -> Response:
    """Repositories in name order, or the newest first; `filter` names tags (by commas, or several times)."""
    if sort is not None and sort not in _ORDERS:
        raise BadRequest(f"sort must be one of {', '.join(_ORDERS)}.")
    order = _ORDERS[sort] if sort else "name"
    full = full or bool(expand)
    limit = min(limit, FULL_LIST_PAGE if full else LIST_PAGE)
    tags = [tag for one in [*filter, pipeline_tag or ""] for tag in one.split(",") if tag]
    if not who.may_read:
        return JSONResponse([])
    with context.read_sessions() as session:
        found = directory.page_of_repos(
            session,
            visible_to=who.visible_to,
            search=search,
            author=author,
            tags=tags,
            gated=gated,
            order=order,
            behind=_decode_cursor(cursor, order) if cursor else None,
            limit=limit + 1,
        )
        repos = found[:limit]
        ids = [repo.id for repo in repos]
        heads = repository.heads(session, ids, DEFAULT_BRANCH)
        tags_of = directory.tags_of(session, ids)
        files_of = repository.files_of(session, [head.id for head in heads.values()]) if full else {}
    shown = []
    for repo in repos:
        head = heads.get(repo.id)
        files = files_of.get(head.id, []) if head else []
        info = wire.model_info(repo, head, files, tags=tags_of[repo.id], card=Card(), blobs=False, expand=expand)
        shown.append(info if full else {key: value for key, value in info.items() if key not in _FULL_ONLY})
    headers = {}
    if len(found) > limit:
        query: dict[str, Any] = {
            "search": search,
            "author": author,
            "filter": tags,
            "gated": _flag(gated),
            "sort": sort,
        }
        query |= {"full": _flag(full), "expand": expand, "limit": limit, "cursor": _encode_cursor(repos[-1], order)}
        headers["Link"] = next_link(request, context, "/api/models", query)
    return JSONResponse(shown, headers=headers)


_FULL_ONLY = frozenset({"siblings", "usedStorage", "cardData"})


def _flag(value: bool | None) -> str | None:
    return None if value is None else str(value).lower()


def _encode_cursor(last: RepoRow, order: Order) -> str:
    value = last.name if order == "name" else getattr(last, order).isoformat()
    return base64.urlsafe_b64encode(json.dumps([order, value, last.name]).encode()).decode().rstrip("=")


def _decode_cursor(cursor: str, order: Order) -> Behind:
    try:
        text = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        of, value, name = json.loads(text)
        if of == order and isinstance(value, str) and isinstance(name, str):
            return Behind(check_repo_name(value) if order == "name" else _moment(value), check_repo_name(name))
    except (binascii.Error, ValueError, TypeError, OverflowError, RecursionError):
        pass
    raise BadRequest("The cursor is not one of this list; begin again without it.")


def _moment(text: str) -> datetime:
    """A time of the database's.

    Raises:
        ValueError, OverflowError: it is none.
    """
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(text)
    return moment.astimezone(UTC)


@routes.route("/api/models/{repo}/auth-check")
def check_reading(context: Context, who: CallerOf, name: RepoName) -> Response:
    """Whether the caller may read the files."""
    with reading(context, who, name, files=True):
        return Response(status_code=200)


@routes.route("/api/models/{repo}/auth-check/write")
def check_writing(context: Context, who: CallerOf, name: RepoName) -> Response:
    """Whether the caller may change the files."""
    with context.read_sessions() as session:
        writable(session, who, name)
    return Response(status_code=200)


@router.get("/api/whoami-v2")
def who_am_i(who: CallerOf) -> Response:
    """The caller, as `hf auth login` and `hf auth whoami` ask for it."""
    if who.scope is None:
        raise InvalidCredentials
    answer: dict[str, Any] = {"type": "user", "id": who.key, "name": who.name, "fullname": who.name, "orgs": []}
    answer["auth"] = {
        "type": "access_token",
        "accessToken": {"displayName": who.name, "role": _ROLES[who.scope]},
    }
    return JSONResponse(answer)


@routes.route("/{repo}/blob/{rev}/{path:path}")
@routes.route("/{repo}/commits/{rev}")
@routes.route("/{repo}/commit/{rev}")
@routes.route("/{repo}/tree/{rev}")
@routes.route("/{repo}/tree/{rev}/{path:path}")
def show_page(name: RepoName, rev: str, path: str = "") -> Response:
    """The addresses that clients print after an upload, and those of the Hub's own pages, lead to the model's page."""
    return RedirectResponse(f"/models/{quote(name)}?revision={quote(decode_segment(rev), safe='')}", 302)
