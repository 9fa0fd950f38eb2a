"""What a repository holds: trees, paths, branches and tags, commits."""

import json
from collections.abc import Iterable
from typing import Annotated
from urllib.parse import parse_qs, quote

from fastapi import Query, Request, Response
from fastapi.responses import JSONResponse
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool

from app.api.hub.routing import CallerOf, Context, RepoName, RepoRoutes, next_link, reading
from app.db.models import CommitRow
from app.hub import repository, wire
from app.hub.access import Caller
from app.hub.context import HubContext
from app.hub.errors import BadRequest, EntryNotFound
from app.hub.objects import tree_entries
from app.hub.raw_path import decode_segment
from app.hub.revisions import resolve

TREE_PAGE = 1000
COMMIT_PAGE = 1000
MAX_PATHS = 10_000
_REMOVALS = 10_000
"""Removed files that are looked at for when their directories changed last: the newest ones."""

routes = RepoRoutes()


@routes.route("/api/models/{repo}/tree/{rev}")
@routes.route("/api/models/{repo}/tree/{rev}/{path:path}")
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
    directory, revision = decode_segment(path).strip("/"), decode_segment(rev)
    with reading(context, who, name, revision, files=True) as (session, repo):
        commit = resolve(session, repo, revision)
        files = repository.files(session, commit)
        entries = wire.tree_listing(files, directory, recursive=recursive)
        if entries is None:
            raise EntryNotFound(repo.name, commit.oid, directory)
        if cursor is not None:
            behind = wire.decode_cursor(cursor)
            entries = [entry for entry in entries if entry.path > behind]
        changed = _last_commits(session, commit, [entry.path for entry in entries[:limit]]) if expand else {}
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
        headers["Link"] = next_link(request, context, where, query)
    return JSONResponse(shown, headers=headers)


def _last_commits(session: Session, commit: CommitRow, paths: Iterable[str]) -> dict[str, CommitRow]:
    """For each of these paths the commit that changed it last."""
    removed = repository.removals(session, commit, limit=_REMOVALS)
    ids = wire.last_changes(repository.files_since(session, commit), removed)
    wanted = {path: ids[path] for path in paths if path in ids}
    rows = repository.commits(session, wanted.values())
    return {path: rows[commit_id] for path, commit_id in wanted.items()}


@routes.route("/api/models/{repo}/paths-info/{rev}", "POST")
async def paths_info(request: Request, context: Context, who: CallerOf, name: RepoName, rev: str) -> Response:
    """The entries of these paths (a form, or JSON); what is not there is left out."""
    paths, expand = await _asked_paths(request)
    return await run_in_threadpool(_paths_info, context, who, name, decode_segment(rev), paths, expand)


async def _asked_paths(request: Request) -> tuple[list[str], bool]:
    body = (await request.body()).decode("utf-8", "replace")
    if request.headers.get("content-type", "").startswith("application/json"):
        try:
            asked = json.loads(body)
        except (ValueError, RecursionError):
            raise BadRequest("The body is not valid JSON.") from None
        if not isinstance(asked, dict):
            raise BadRequest("The body must be an object with `paths`.")
        paths, expand = asked.get("paths", []), asked.get("expand", False)
        paths = [paths] if isinstance(paths, str) else paths
        if not isinstance(paths, list) or not all(isinstance(path, str) for path in paths):
            raise BadRequest("`paths` must be a list of paths.")
    else:
        form = parse_qs(body, keep_blank_values=True)
        paths, expand = form.get("paths", []), form.get("expand", ["false"])[-1].lower() in {"true", "1"}
    if len(paths) > MAX_PATHS:
        raise BadRequest(f"At most {MAX_PATHS} paths can be asked for at once.")
    return paths, bool(expand)


def _paths_info(
    context: HubContext, who: Caller, name: str, revision: str, paths: list[str], expand: bool
) -> JSONResponse:
    with reading(context, who, name, revision, files=True) as (session, repo):
        commit = resolve(session, repo, revision)
        entries = tree_entries(repository.files(session, commit))
        wanted = dict.fromkeys(path.strip("/") for path in paths)
        changed = _last_commits(session, commit, wanted) if expand else {}
    shown = [wire.tree_entry(entries[path], changed.get(path)) for path in wanted if path and path in entries]
    return JSONResponse(shown, headers={"X-Repo-Commit": commit.oid})


@routes.route("/api/models/{repo}/refs")
def list_refs(context: Context, who: CallerOf, name: RepoName, include_prs: bool = False) -> Response:
    """Branches and tags; this hub has no pull requests."""
    with reading(context, who, name, files=True) as (session, repo):
        found = wire.refs(repository.refs(session, repo.id))
    return JSONResponse(found | ({"pullRequests": []} if include_prs else {}))


@routes.route("/api/models/{repo}/commits/{rev}")
def list_commits(
    request: Request,
    context: Context,
    who: CallerOf,
    name: RepoName,
    rev: str,
    limit: Annotated[int, Query(ge=1, le=COMMIT_PAGE)] = COMMIT_PAGE,
) -> Response:
    """A revision and its ancestors, newest first."""
    revision = decode_segment(rev)
    with reading(context, who, name, revision, files=True) as (session, repo):
        rows = repository.history(session, resolve(session, repo, revision), limit=limit + 1)
    headers = {}
    if len(rows) > limit:  # the next page is the history of its first commit
        where = f"/api/models/{repo.name}/commits/{rows[limit].oid}"
        headers["Link"] = next_link(request, context, where, {"limit": limit})
    return JSONResponse([wire.commit(row) for row in rows[:limit]], headers=headers)
