"""The hub's one entry point into `create_app`."""

from fastapi import FastAPI

from app.api.hub import administration, commits, files, lfs, listing, models
from app.api.hub.routing import hub_router
from app.hub.context import HubContext
from app.hub.raw_path import RawPathMiddleware

_ROUTERS = (models.router, administration.router, commits.router, lfs.router)
_REPO_ROUTES = (lfs.routes, files.routes, listing.routes, administration.routes, commits.routes, models.routes)


def hub_body_limits(max_upload_bytes: int) -> dict[str, int]:
    """Longest bodies of the calls that take more than a little JSON, by regular expressions of their paths."""
    return {
        rf"{lfs.UPLOAD_PATH}[^/]+": max_upload_bytes,
        r"/api/models/.+/commit/.+": commits.MAX_COMMIT_BYTES,
    }


def install_hub(app: FastAPI, context: HubContext) -> None:
    """Serve the hub from this application; behind everything else, because its paths begin with any name."""
    app.state.hub = context
    app.add_middleware(RawPathMiddleware)
    for router in _ROUTERS:
        app.include_router(router)
    router = hub_router()
    for routes in _REPO_ROUTES:
        routes.add_to(router)
    app.include_router(router)
