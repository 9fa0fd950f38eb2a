"""A file of a revision: the one call that carries bytes down."""

from pathlib import PurePosixPath
from typing import Annotated
from urllib.parse import quote

import structlog
from fastapi import Header, Request, Response

from app.api.blob_response import BlobResponse, redirect_to_store
from app.api.hub.routing import CallerOf, Context, RepoName, RepoRoutes, reading
from app.db.models import CommitRow, RepoRow
from app.hub.byte_range import RangeNotSatisfiable, etag_matches, parse_range
from app.hub.errors import ContentLost
from app.hub.objects import TreeFile
from app.hub.raw_path import decode_segment
from app.hub.revisions import file_at, resolve
from app.storage.blobs import BlobNotFound

_TEXT = {".json": "application/json", ".md": "text/plain", ".txt": "text/plain", ".py": "text/plain"}

log = structlog.get_logger(__name__)
routes = RepoRoutes()


@routes.route("/{repo}/resolve/{rev}/{path:path}", "GET", "HEAD")
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
    revision = decode_segment(rev)
    with reading(context, who, name, revision, files=True) as (session, repo):
        commit = resolve(session, repo, revision)
        file = file_at(session, repo, commit, decode_segment(path))
    etag = f'"{file.etag}"'
    headers = {"X-Repo-Commit": commit.oid, "ETag": etag, "Accept-Ranges": "bytes"}
    try:  # also before a HEAD: it must not promise what the GET cannot keep
        context.store.direct_path(file.sha256)
    except BlobNotFound:
        raise _lost(repo, commit, file) from None
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
    status = 206 if part else 200
    try:
        return BlobResponse(
            context.store, file.sha256, start, end, status_code=status, headers=headers, media_type=media_type
        )
    except BlobNotFound:  # between the two
        raise _lost(repo, commit, file) from None


def _lost(repo: RepoRow, commit: CommitRow, file: TreeFile) -> ContentLost:
    log.error("blob_lost", repo=repo.name, commit=commit.oid, path=file.path, sha256=file.sha256)
    return ContentLost(repo.name, commit.oid, file.path)


def _disposition(file: TreeFile) -> str:
    return f"attachment; filename*=UTF-8''{quote(PurePosixPath(file.path).name, safe='')}"
