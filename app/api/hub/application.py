"""The hub's one entry point into `create_app`."""

from fastapi import FastAPI

from app.api.hub import administration, commits, files, lfs, listing, models, xet
from app.api.hub.routing import hub_router
from app.hub.context import HubContext
from app.hub.raw_path import RawPathMiddleware
from app.hub.xet_format import MAX_SHARD_BYTES, MAX_XORB_BYTES

_WITH_ROUTES_OF_THEIR_OWN = (models, administration, commits, lfs, xet)
_ABOUT_A_REPOSITORY = (lfs, files, listing, administration, commits, xet, models)


def hub_body_limits(max_upload_bytes: int) -> dict[str, int]:
    """Longest bodies of the calls that take more than a little JSON, by regular expressions of their paths."""
    return {
        rf"{lfs.UPLOAD_PATH}[^/]+": max_upload_bytes,
        r"/xet/[^/]+/v1/xorbs/.+": MAX_XORB_BYTES,
        r"/xet/[^/]+/v1/shards": MAX_SHARD_BYTES,
        r"/api/models/[^/]+(?:/[^/]+)?/commit/[^/]+": commits.MAX_COMMIT_BYTES,
    }


def install_hub(app: FastAPI, context: HubContext) -> None:
    """Serve the hub from this application; behind everything else, because its paths begin with any name."""
    app.state.hub = context
    app.add_middleware(RawPathMiddleware)
    for module in _WITH_ROUTES_OF_THEIR_OWN:
        app.include_router(module.router)
    router = hub_router()
    for module in _ABOUT_A_REPOSITORY:
        module.routes.add_to(router)
    app.include_router(router)
