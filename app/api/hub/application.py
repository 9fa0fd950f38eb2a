"""The hub's one entry point into `create_app`."""

from fastapi import FastAPI

from app.api.hub import files, listing, models
from app.api.hub.routing import hub_router
from app.hub.context import HubContext
from app.hub.raw_path import RawPathMiddleware

_ROUTERS = (models.router,)
_REPO_ROUTES = (files.routes, listing.routes, models.routes)


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
