"""The calls of stock Hugging Face clients: reading. All of it is served at the root, where `HF_ENDPOINT` points.

`{rev}` is one percent-encoded segment; RawPathMiddleware keeps it in one piece. A repository is `namespace/name` or
`name`: every route exists in both forms, the short one first. That is unambiguous because no repository may be called
like a word of these URLs (app/hub/names.py).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import Annotated, Any
from urllib.parse import quote, urlencode

import structlog
from fastapi import APIRouter, Depends, FastAPI, Header, Query, Request, Response
from fastapi.responses import JSONResponse
from sqlalchemy.orm import Session

from app.api.blob_response import BlobResponse, redirect_to_store
from app.api.hub_errors import HubRoute
from app.auth.callers import BadKeyError, identify
from app.auth.loopback import NotFromThisMachine
from app.db.models import CommitRow, RepoRow
from app.hub import repository, wire
from app.hub.access import Caller
from app.hub.byte_range import RangeNotSatisfiable, etag_matches, parse_range
from app.hub.context import HubContext
from app.hub.errors import ContentLost, EntryNotFound, ForeignRequest, InvalidCredentials
from app.hub.objects import TreeFile
from app.hub.raw_path import RawPathMiddleware, decode_segment
from app.hub.revisions import DEFAULT_BRANCH, file_at, repo_named, resolve
from app.storage.blobs import BlobNotFound

TREE_PAGE = 1000
LIST_PAGE = 1000
FULL_LIST_PAGE = 100
MAX_COMMITS = 1000
_TEXT = {".json": "application/json", ".md": "text/plain", ".txt": "text/plain", ".py": "text/plain"}

log = structlog.get_logger(__name__)

# Not in our OpenAPI document: it is the Hub's API, and its documentation is the Hub's.
router = APIRouter(route_class=HubRoute, include_in_schema=False)


def install_hub(app: FastAPI, context: HubContext) -> None:
    """Serve the hub from this application; the routes' one entry point into `create_app`."""
    app.state.hub = context
    app.add_middleware(RawPathMiddleware)
    app.include_router(router)


def hub_context(request: Request) -> HubContext:
    """What the routes work with."""
    context: HubContext = request.app.state.hub
    return context


def caller(request: Request) -> Caller:
    """Who asks; a key that is not valid is refused in the words that clients compare."""
    with hub_context(request).read_sessions() as session:
        try:
            identity = identify(session, request.method, request.headers)
        except BadKeyError:
            raise InvalidCredentials from None
        except NotFromThisMachine as error:
            raise ForeignRequest(str(error)) from None
    return Caller(has_token="authorization" in request.headers, name=identity.name, may_read=identity.scope is not None)


def repo_name(request: Request) -> str:
    """The repository that the URL names."""
    parts = [request.path_params[key] for key in ("namespace", "name") if key in request.path_params]
    return "/".join(decode_segment(part) for part in parts)


Context = Annotated[HubContext, Depends(hub_context)]
CallerOf = Annotated[Caller, Depends(caller)]
RepoName = Annotated[str, Depends(repo_name)]
Endpoint = Callable[..., Any]


def _route(form: str, *, methods: tuple[str, ...] = ("GET",)) -> Callable[[Endpoint], Endpoint]:
    def register(endpoint: Endpoint) -> Endpoint:
        _FORMS.append((form, methods, endpoint))
        return endpoint

    return register


_FORMS: list[tuple[str, tuple[str, ...], Endpoint]] = []


@contextmanager
def _reading(context: HubContext, who: Caller, name: str, *, files: bool) -> Iterator[tuple[Session, RepoRow]]:
    """A short read transaction, ended before the first byte of the answer leaves, on a repository that may be read."""
    with context.read_sessions() as session:
        repo = repo_named(session, name)
        who.check(repo, files=files)
        yield session, repo


@_route("/{repo}/resolve/{rev}/{path:path}", methods=("GET", "HEAD"))
def resolve_file(
    request: Request,
    context: Context,
    who: CallerOf,
    name: RepoName,
    rev: str,
    path: str,
    range_header: Annotated[str | None, Header(alias="range")] = None,
    if_range: Annotated[str | None, Header()] = None,
    if_none_match: Annotated[str | None, Header()] = None,
) -> Response:
    """A file of a revision, whole or a range of it; HEAD tells its commit, ETag and length."""
    with _reading(context, who, name, files=True) as (session, repo):
        commit = resolve(session, repo, decode_segment(rev))
        file = file_at(session, repo, commit, decode_segment(path))
    etag = f'"{file.etag}"'
    headers = {"X-Repo-Commit": commit.oid, "ETag": etag, "Accept-Ranges": "bytes"}
    try:  # also before a HEAD: it must not promise what the GET cannot keep
        context.store.direct_path(file.sha256)
    except BlobNotFound:
        log.error("blob_lost", repo=repo.name, commit=commit.oid, path=file.path, sha256=file.sha256)
        raise ContentLost(repo.name, commit.oid, file.path) from None
    if etag_matches(if_none_match, etag):
        return Response(status_code=304, headers=headers)
    # Nobody's upload may run as a page of this site.
    headers |= {"X-Content-Type-Options": "nosniff", "Content-Disposition": _disposition(file)}
    media_type = _TEXT.get(PurePosixPath(file.path).suffix, "application/octet-stream")
    if request.method == "HEAD":  # ranges are defined for GET alone
        return Response(headers=headers | {"Content-Length": str(file.size)}, media_type=media_type)
    filename = PurePosixPath(file.path).name
    if away := redirect_to_store(context.store, file.sha256, filename=filename, headers=headers, media_type=media_type):
        return away
    try:
        part = parse_range(range_header if if_range in {None, etag} else None, file.size)
    except RangeNotSatisfiable:
        return Response(status_code=416, headers=headers | {"Content-Range": f"bytes */{file.size}"})
    start, end = (part.start, part.end) if part else (0, file.size)
    headers["Content-Length"] = str(end - start)
    if part:
        headers["Content-Range"] = part.content_range
    return BlobResponse(
        context.store, file.sha256, start, end, status_code=206 if part else 200, headers=headers, media_type=media_type
    )


def _disposition(file: TreeFile) -> str:
    return f"attachment; filename*=UTF-8''{quote(PurePosixPath(file.path).name, safe='')}"


@_route("/api/models/{repo}/tree/{rev}")
@_route("/api/models/{repo}/tree/{rev}/{path:path}")
def list_tree(
    request: Request,
    context: Context,
    who: CallerOf,
    name: RepoName,
    rev: str,
    path: str = "",
    recursive: bool = False,
    expand: bool = False,
    cursor: str | None = None,
    limit: Annotated[int, Query(ge=1, le=TREE_PAGE)] = TREE_PAGE,
) -> Response:
    """Files and directories of a revision, below `path`, in path order; `expand` adds each one's last commit."""
    directory = decode_segment(path).strip("/")
    with _reading(context, who, name, files=True) as (session, repo):
        commit = resolve(session, repo, decode_segment(rev))
        files = repository.files(session, commit)
        entries = wire.tree_listing(files, directory, recursive=recursive)
        if entries is None:
            raise EntryNotFound(repo.name, commit.oid, directory)
        if cursor is not None:
            behind = wire.decode_cursor(cursor)
            entries = [entry for entry in entries if entry.path > behind]
        changed = _last_commits(session, commit) if expand else {}
    shown = [wire.tree_entry(entry, changed.get(entry.path)) for entry in entries[:limit]]
    headers = {"X-Repo-Commit": commit.oid}
    if len(entries) > limit:
        query = {
            "recursive": str(recursive).lower(),
            "expand": str(expand).lower(),
            "limit": limit,
            "cursor": wire.encode_cursor(entries[limit - 1].path),
        }
        where = f"/api/models/{repo.name}/tree/{commit.oid}" + (f"/{quote(directory, safe='')}" if directory else "")
        headers["Link"] = _next_link(request, context, where, query)
    return JSONResponse(shown, headers=headers)


def _last_commits(session: Session, commit: CommitRow) -> dict[str, CommitRow]:
    chain = repository.history(session, commit, limit=MAX_COMMITS)
    return dict(wire.last_commits([(row, repository.files(session, row)) for row in chain]))


@_route("/api/models/{repo}/refs")
def list_refs(context: Context, who: CallerOf, name: RepoName) -> Response:
    """Branches and tags."""
    with _reading(context, who, name, files=True) as (session, repo):
        return JSONResponse(wire.refs(repository.refs(session, repo.id)))


@_route("/api/models/{repo}/commits/{rev}")
def list_commits(context: Context, who: CallerOf, name: RepoName, rev: str) -> Response:
    """A revision and its ancestors, newest first (the newest thousand)."""
    with _reading(context, who, name, files=True) as (session, repo):
        rows = repository.history(session, resolve(session, repo, decode_segment(rev)), limit=MAX_COMMITS)
    return JSONResponse([wire.commit(row) for row in rows])


@_route("/api/models/{repo}/revision/{rev}")
@_route("/api/models/{repo}")
def model_info(
    context: Context,
    who: CallerOf,
    name: RepoName,
    rev: str | None = None,
    blobs: bool = False,
    expand: Annotated[list[str], Query()] = [],  # noqa: B006 - FastAPI copies it
) -> Response:
    """A repository at a revision (default: `main`, or no files where nothing has been published there yet)."""
    with _reading(context, who, name, files=False) as (session, repo):
        if rev is None:
            commit = repository.commit_of_ref(session, repo.id, "branch", DEFAULT_BRANCH)
        else:
            commit = resolve(session, repo, decode_segment(rev))
        files = repository.files(session, commit) if commit else []
    return JSONResponse(wire.model_info(repo, commit, files, blobs=blobs, expand=expand))


@router.get("/api/models")
def list_models(
    request: Request,
    context: Context,
    who: CallerOf,
    search: str | None = None,
    author: str | None = None,
    full: bool = False,
    cursor: str | None = None,
    limit: Annotated[int, Query(ge=1)] = LIST_PAGE,
) -> Response:
    """Repositories in name order."""
    limit = min(limit, FULL_LIST_PAGE if full else LIST_PAGE)
    with context.read_sessions() as session:
        found = repository.page_of_repos(
            session,
            search=search,
            author=author,
            include_private=who.sees_private,
            after=wire.decode_cursor(cursor) if cursor else None,
            limit=limit + 1,
        )
        repos = [repo for repo in found[:limit] if who.may_know_of(repo)]
        heads = repository.heads(session, [repo.id for repo in repos], DEFAULT_BRANCH)
        shown = []
        for repo in repos:
            head = heads.get(repo.id)
            info = wire.model_info(repo, head, repository.files(session, head) if full and head else [], blobs=False)
            shown.append(info if full else {key: value for key, value in info.items() if key not in _FULL_ONLY})
    headers = {}
    if len(found) > limit:
        query = {"search": search, "author": author, "full": str(full).lower(), "limit": limit}
        query["cursor"] = wire.encode_cursor(found[limit - 1].name)
        headers["Link"] = _next_link(request, context, "/api/models", query)
    return JSONResponse(shown, headers=headers)


_FULL_ONLY = frozenset({"siblings", "usedStorage"})


@router.get("/api/whoami-v2")
def who_am_i(who: CallerOf) -> Response:
    """The caller, as `hf auth login` and `hf auth whoami` ask for it."""
    if not who.may_read:
        raise InvalidCredentials
    token = {"displayName": who.name, "role": "write"}
    return JSONResponse(
        {"type": "user", "name": who.name, "orgs": [], "auth": {"type": "access_token", "accessToken": token}}
    )


def _next_link(request: Request, context: HubContext, path: str, query: dict[str, Any]) -> str:
    # Absolute: clients do not resolve a relative one.
    base = (context.public_url or str(request.base_url)).rstrip("/")
    arguments = urlencode({key: value for key, value in query.items() if value is not None})
    return f'<{base}{path}?{arguments}>; rel="next"'


# The short form of every route before the long form of any: see the module's docstring.
for _repo in ("{name}", "{namespace}/{name}"):
    for _form, _methods, _endpoint in _FORMS:
        router.add_api_route(_form.replace("{repo}", _repo), _endpoint, methods=list(_methods))
