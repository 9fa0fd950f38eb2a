"""Commits: what a client asks before it uploads, and the commit itself."""

from collections.abc import AsyncIterator, Sequence
from typing import Annotated, Any

import structlog
from fastapi import Body, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool

from app.api.hub.routing import CallerOf, Context, RepoName, RepoRoutes, base_url, hub_router
from app.db.models import CommitRow
from app.hub import repository
from app.hub.access import Caller, writable
from app.hub.card import BadCard, model_tags, parse_card, read_card
from app.hub.changes import (
    MAX_CHANGES,
    Content,
    Header,
    Removed,
    Stored,
    apply,
    check_file_path,
    claim_stored,
    commit_changes,
    parse_line,
)
from app.hub.context import HubContext
from app.hub.errors import BadRequest, ForbiddenPullRequest, RevisionNotFound, StaleParent, TooLarge
from app.hub.objects import LARGE_BYTES, TreeFile, tree_oid
from app.hub.publishing import check_unprotected
from app.hub.raw_path import decode_segment
from app.hub.revisions import DEFAULT_BRANCH, resolve

MAX_COMMIT_BYTES = 1 << 30
MAX_LINE_BYTES = 2 * LARGE_BYTES
"""Room for the longest file that preupload lets into a commit, in base64."""
_PREUPLOAD_FILES = 1000

log = structlog.get_logger(__name__)
routes = RepoRoutes()
router = hub_router()


class PreuploadFile(BaseModel):
    """A file that a client is about to upload."""

    path: str
    size: int


class Preupload(BaseModel):
    """All of them."""

    files: list[PreuploadFile]


@routes.route("/api/models/{repo}/preupload/{rev}", "POST")
def preupload(asked: Preupload, context: Context, who: CallerOf, name: RepoName, rev: str) -> Response:
    """How each file is to be sent: in the commit (`regular`) or before it (`lfs`), and what is there already."""
    if len(asked.files) > _PREUPLOAD_FILES:
        raise BadRequest(f"At most {_PREUPLOAD_FILES} files can be asked for at once.")
    for file in asked.files:
        check_file_path(file.path)
        if not 0 <= file.size <= context.uploads.max_bytes:
            raise TooLarge(f"{file.path[:300]!r} is larger than the {context.uploads.max_bytes:,} bytes taken here.")
    with context.read_sessions() as session:
        repo = writable(session, who, name)
        if decode_segment(rev) == DEFAULT_BRANCH:
            check_unprotected(session, repo)  # before the client sends gigabytes
        named = {file.path: file for file in repository.files(session, resolve(session, repo, decode_segment(rev)))}
        asked_for = [named[file.path] for file in asked.files if file.path in named]
        lost = repository.absent(session, [file.sha256 for file in asked_for])
        held = {file.path: file for file in asked_for if file.sha256 not in lost}
    answers = []
    for file in asked.files:
        there = held.get(file.path)
        large = TreeFile(file.path, file.size, "", "").is_large
        answer: dict[str, Any] = {"path": file.path, "uploadMode": "lfs" if large else "regular", "shouldIgnore": False}
        if there is not None:
            answer["oid"] = there.etag
        answers.append(answer)
    return JSONResponse({"files": answers})


@routes.route("/api/models/{repo}/commit/{rev}", "POST")
async def commit(
    request: Request, context: Context, who: CallerOf, name: RepoName, rev: str, create_pr: bool = False
) -> Response:
    """Commit changes to a branch: NDJSON, a header and then a change per line."""
    if create_pr:
        raise ForbiddenPullRequest
    branch = decode_segment(rev)
    base, files, full_name = await run_in_threadpool(_base, context, who, name, branch)
    header, changes = await _read(request, context)
    if header.parent and not base.oid.startswith(header.parent):
        raise StaleParent(full_name, branch)
    made = await run_in_threadpool(_commit, context, who, full_name, branch, base, files, header, changes)
    url = f"{base_url(request, context)}/{full_name}/commit/{made.oid}"
    return JSONResponse({"success": True, "commitOid": made.oid, "commitUrl": url, "hookOutput": ""})


def _base(context: HubContext, who: Caller, name: str, branch: str) -> tuple[CommitRow, Sequence[TreeFile], str]:
    with context.read_sessions() as session:
        repo = writable(session, who, name)
        base = repository.branch_head(session, repo, branch)
        if base is None:
            raise RevisionNotFound(repo.name, branch)
        return base, repository.files(session, base), repo.name


async def _read(request: Request, context: HubContext) -> tuple[Header, list[TreeFile | Stored | Removed]]:
    """The commit, whose contents go to the store line by line, so that one file at a time is in memory."""
    header: Header | None = None
    changes: list[TreeFile | Stored | Removed] = []
    async for line in _lines(request):
        parsed = await run_in_threadpool(parse_line, line)
        del line
        if isinstance(parsed, Header):
            header = parsed
        elif isinstance(parsed, Content):
            blob = await run_in_threadpool(context.store.put_bytes, parsed.content)
            changes.append(TreeFile(parsed.path, blob.size, blob.sha256, blob.git_oid))
        else:
            changes.append(parsed)
        if len(changes) > MAX_CHANGES:
            raise TooLarge(f"A commit holds at most {MAX_CHANGES:,} changes; send several.")
    if header is None:
        raise BadRequest("The commit has no header; its first line must have the key `header`.")
    return header, changes


async def _lines(request: Request) -> AsyncIterator[bytes]:
    buffer = bytearray()
    async for chunk in request.stream():
        buffer += chunk
        *complete, rest = buffer.split(b"\n") if b"\n" in chunk else (buffer,)
        if max(map(len, (*complete, rest))) > MAX_LINE_BYTES:
            raise TooLarge(
                f"A line of the commit is longer than {MAX_LINE_BYTES:,} bytes; upload large files before the commit."
            )
        for line in complete:
            if line.strip():
                yield bytes(line)
        if complete:
            buffer = rest
    if buffer.strip():
        yield bytes(buffer)


def _commit(
    context: HubContext,
    who: Caller,
    name: str,
    branch: str,
    base: CommitRow,
    files: Sequence[TreeFile],
    header: Header,
    changes: Sequence[TreeFile | Stored | Removed],
) -> CommitRow:
    stored = [change for change in changes if isinstance(change, Stored)]
    with context.read_sessions() as session:
        claimed = claim_stored(repository.possessed(session, base.repo_id, [file.sha256 for file in stored]), stored)
    after = apply(name, base, files, [claimed[change] if isinstance(change, Stored) else change for change in changes])
    if tree_oid(after) == tree_oid(files):
        return base
    tags = model_tags(after, read_card(context.store, after))
    author = who.name if who.key else ""
    with context.sessions.begin() as session:
        writable(session, who, name)  # once more: the body may have taken long
        made = commit_changes(session, name, branch, base, after, message=header.message, author=author, tags=tags)
    log.info("committed", repo=name, branch=branch, commit=made.oid, changes=len(changes))
    return made


@router.post("/api/validate-yaml")
def validate_yaml(content: Annotated[str, Body(embed=True)], _who: CallerOf) -> Response:
    """Whether a README's front matter can be understood; a client asks before it uploads one."""
    try:
        card = parse_card(content)
    except BadCard as error:
        return JSONResponse({"errors": [{"message": str(error)}], "warnings": []}, 400)
    warnings = [] if card.metadata else [{"message": "The card has no metadata: no license, no base_model."}]
    return JSONResponse({"errors": [], "warnings": warnings})
