"""Large files on their way in: git LFS's batch API, with parts, over links that carry no key.

https://github.com/git-lfs/git-lfs/blob/main/docs/api/batch.md; the parts are the Hugging Face Hub's own extension.
"""

import hashlib
from typing import Any, BinaryIO

from fastapi import Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.concurrency import run_in_threadpool

from app.api.hub.charging import charge_upload
from app.api.hub.routing import CallerOf, Context, RepoName, RepoRoutes, base_url, hub_router
from app.hub import repository
from app.hub.access import writable
from app.hub.context import HubContext
from app.hub.errors import BadRequest, ContentMismatch, TooLarge
from app.hub.uploads import LINK_SECONDS, Part

UPLOAD_PATH = "/api/uploads/"
_MEDIA_TYPE = "application/vnd.git-lfs+json"
_BATCH_OBJECTS = 256  # what the Hub's client sends at once
_BUFFER_BYTES = 1 << 20
_REMEMBERED_SECONDS = 7 * 86400
"""How long an upload waits for the commit that names it."""

routes = RepoRoutes()
router = hub_router()


class LfsObject(BaseModel):
    """An object of a batch."""

    oid: str = Field(pattern="^[0-9a-f]{64}$")
    size: int = Field(ge=0)


class Batch(BaseModel):
    """What a client wants to transfer, and how it can."""

    operation: str
    transfers: list[str] = Field(default_factory=lambda: ["basic"])
    objects: list[LfsObject] = Field(max_length=_BATCH_OBJECTS)
    hash_algo: str = "sha256"


@routes.route("/{repo}.git/info/lfs/objects/batch", "POST")
def batch(asked: Batch, request: Request, context: Context, who: CallerOf, name: RepoName) -> Response:
    """For each object the links to send it to; none where it is here already, sent by a writer of this repository."""
    if asked.operation != "upload" or asked.hash_algo != "sha256":
        raise BadRequest("Only uploads are served here, named by sha256; download files at /{repo}/resolve/.")
    for wanted in asked.objects:
        if wanted.size > context.uploads.max_bytes:
            raise TooLarge(f"{wanted.oid} is larger than the {context.uploads.max_bytes:,} bytes taken here.")
    context.uploads.collect_abandoned()
    with context.sessions.begin() as session:
        repo = writable(session, who, name)
        repository.forget_uploads(session, older_than_seconds=_REMEMBERED_SECONDS)
        held = repository.possessed(session, repo.id, [wanted.oid for wanted in asked.objects])
        repository.touch_uploads(session, repo.id, list(held))
    multipart = "multipart" in asked.transfers
    base = base_url(request, context)
    objects = []
    for wanted in asked.objects:
        there = held.get(wanted.oid)
        entry: dict[str, Any] = {"oid": wanted.oid, "size": wanted.size}
        if there is None or there.size != wanted.size:
            actions = _actions(context, base, repo.id, who.key, wanted, multipart=multipart)
            entry |= {"authenticated": True, "actions": actions}
        objects.append(entry)
    return JSONResponse(
        {"transfer": "multipart" if multipart else "basic", "objects": objects, "hash_algo": "sha256"},
        media_type=_MEDIA_TYPE,
    )


def _actions(
    context: HubContext, base: str, repo_id: int, key: str, wanted: LfsObject, *, multipart: bool
) -> dict[str, dict[str, Any]]:
    uploads = context.uploads
    whole = Part(repo_id, wanted.oid, wanted.size, 0, wanted.size, key)
    part_bytes = uploads.part_bytes(wanted.size)

    def link(part: Part, suffix: str = "") -> str:
        return f"{base}{UPLOAD_PATH}{uploads.link(part)}{suffix}"

    upload: dict[str, Any] = {"href": link(whole), "expires_in": LINK_SECONDS}
    if multipart and wanted.size > part_bytes:
        parts = Part.all_of(repo_id, wanted.oid, wanted.size, part_bytes=part_bytes, key=key)
        upload["href"] = link(whole, "/complete")
        upload["header"] = {"chunk_size": str(part_bytes)} | {
            str(number): link(part) for number, part in enumerate(parts, 1)
        }
    return {"upload": upload, "verify": {"href": link(whole, "/verify"), "expires_in": LINK_SECONDS}}


@router.put(UPLOAD_PATH + "{ticket}")
async def receive(ticket: str, request: Request, context: Context) -> Response:
    """Take what the link is for: a whole object, which is checked at once, or a part of one."""
    part = context.uploads.part_of(ticket)
    await run_in_threadpool(charge_upload, context, part.key, part.length)
    if part.is_whole:
        with context.uploads.staging(part.length) as (path, file):
            sha256 = await _receive(request, file, part)
            if sha256 != part.sha256:
                raise ContentMismatch(part.sha256, sha256)
            await run_in_threadpool(file.flush)
            await run_in_threadpool(context.keep_upload, part.repo_id, path, part.sha256)
    else:
        with context.uploads.place(part) as file:
            sha256 = await _receive(request, file, part)
    return Response(status_code=200, headers={"ETag": f'"{sha256}"'})


async def _receive(request: Request, file: BinaryIO, part: Part) -> str:
    """Write the body to the file; returns its sha256."""
    digest = hashlib.sha256()
    received = 0
    buffer = bytearray()

    def write() -> None:
        digest.update(buffer)
        file.write(buffer)

    async for chunk in request.stream():
        received += len(chunk)
        if received > part.length:
            raise TooLarge(f"This link takes {part.length:,} bytes and no more.")
        buffer += chunk
        if len(buffer) >= _BUFFER_BYTES:
            await run_in_threadpool(write)
            buffer.clear()
    await run_in_threadpool(write)
    if received != part.length:
        raise BadRequest(f"{received:,} bytes came where {part.length:,} were announced; send them again.")
    return digest.hexdigest()


@router.post(UPLOAD_PATH + "{ticket}/complete")
def complete(ticket: str, context: Context) -> Response:
    """All parts have been sent: check the whole, and keep it. Doing it again changes nothing."""
    part = context.uploads.part_of(ticket)
    path = context.uploads.assembled(part)
    if _size_of(path) != part.size:
        if not _is_kept(context, part):
            raise BadRequest("Not all parts have come; send those that are missing.")
    else:
        try:
            context.keep_upload(part.repo_id, path, part.sha256)
        except ContentMismatch:  # which of its parts is to blame, nobody can tell
            path.unlink(missing_ok=True)
            raise
        path.unlink(missing_ok=True)
    return JSONResponse({"success": True})


def _size_of(path: Any) -> int | None:
    try:
        size: int = path.stat().st_size
    except FileNotFoundError:
        return None
    return size


@router.post(UPLOAD_PATH + "{ticket}/verify")
def verify(ticket: str, context: Context) -> Response:
    """Whether the object is here as announced."""
    part = context.uploads.part_of(ticket)
    if not _is_kept(context, part):
        raise BadRequest(f"The object {part.sha256} has not been received; send it again.")
    return JSONResponse({"success": True})


def _is_kept(context: HubContext, part: Part) -> bool:
    with context.read_sessions() as session:
        kept = repository.possessed(session, part.repo_id, [part.sha256]).get(part.sha256)
    return kept is not None and kept.size == part.size
