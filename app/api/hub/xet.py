"""The write-only Xet bridge: what a client with hf_xet sends its large files to. Downloads go the plain way.

Established with hf_xet 1.8; the calls are those of huggingface/xet-core, spec/api.md. A client that asks for what is
not here (`/v2/shards`, upload grants) falls back to these by the 404.
"""

from pathlib import Path
from typing import Annotated, BinaryIO

from fastapi import Header, Request, Response
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool

from app.api.hub.charging import charge_upload
from app.api.hub.routing import CallerOf, Context, RepoName, RepoRoutes, base_url, hub_router
from app.hub import repository, xet_bridge
from app.hub.access import writable
from app.hub.context import HubContext
from app.hub.errors import BadRequest, LinkExpired
from app.hub.xet_bridge import Writer
from app.storage.blobs import check_sha256

XET_PATH = "/xet/{day}/v1"
_BUFFER_BYTES = 1 << 20

routes = RepoRoutes()
router = hub_router()


@routes.route("/api/models/{repo}/xet-write-token/{rev}")
def write_token(request: Request, context: Context, who: CallerOf, name: RepoName, rev: str) -> Response:
    """A token for the bridge, and its address."""
    context.uploads.collect_abandoned()
    with context.read_sessions() as session:
        repo = writable(session, who, name)
    token, expires = xet_bridge.issue_token(context.uploads, Writer(who.key, repo.id))
    address = f"{base_url(request, context)}/xet/{xet_bridge.address_of_today()}"
    headers = {"X-Xet-Cas-Url": address, "X-Xet-Access-Token": token, "X-Xet-Token-Expiration": str(expires)}
    return JSONResponse({"accessToken": token, "exp": expires, "casUrl": address}, headers=headers)


def _writer(context: HubContext, authorization: str | None) -> Writer:
    kind, _, token = (authorization or "").partition(" ")
    if kind.lower() != "bearer":
        raise LinkExpired
    return xet_bridge.writer_of(context.uploads, token.strip())


@router.post(XET_PATH + "/xorbs/{prefix}/{xorb}")
async def receive_xorb(
    xorb: str, request: Request, context: Context, authorization: Annotated[str | None, Header()] = None
) -> Response:
    """Take a xorb; it makes no file yet."""
    writer = _writer(context, authorization)
    try:
        check_sha256(xorb)  # another hash, of the same form
    except ValueError:
        raise BadRequest("A xorb is named by 64 lower-case hex digits.") from None
    with context.uploads.staging(_declared(request)) as (path, file):
        await _receive(request, file)
        await run_in_threadpool(charge_upload, context, writer.owner, file.tell())
        await run_in_threadpool(xet_bridge.keep_xorb, context.uploads, writer, xorb, path)
    return JSONResponse({"was_inserted": True})


@router.post(XET_PATH + "/shards")
async def receive_shard(
    request: Request, context: Context, authorization: Annotated[str | None, Header()] = None
) -> Response:
    """Take a shard, and put together the files that it describes."""
    writer = _writer(context, authorization)
    with context.uploads.staging(_declared(request)) as (path, file):
        await _receive(request, file)
        await run_in_threadpool(charge_upload, context, writer.owner, file.tell())
        await run_in_threadpool(_rebuild, context, writer, path)
    return JSONResponse({"result": 1})


def _declared(request: Request) -> int:
    length = request.headers.get("content-length", "0")
    return int(length) if length.isdigit() else 0


async def _receive(request: Request, file: BinaryIO) -> None:
    buffer = bytearray()
    async for chunk in request.stream():
        buffer += chunk
        if len(buffer) >= _BUFFER_BYTES:
            await run_in_threadpool(file.write, bytes(buffer))
            buffer.clear()
    await run_in_threadpool(file.write, bytes(buffer))
    await run_in_threadpool(file.flush)


def _rebuild(context: HubContext, writer: Writer, shard: Path) -> None:
    def is_kept(sha256: str) -> bool:
        with context.read_sessions() as session:
            return sha256 in repository.possessed(session, writer.repo_id, [sha256])

    def keep(path: Path, sha256: str) -> None:
        context.keep_upload(writer.repo_id, path, sha256)

    with shard.open("rb") as file:
        xet_bridge.rebuild(context.uploads, writer, file, is_kept=is_kept, keep=keep)
