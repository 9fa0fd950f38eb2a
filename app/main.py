"""The HTTP application. Importing this loads neither torch nor anything of the worker."""

import importlib.util
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from fastapi_swagger import patch_fastapi
from starlette.concurrency import run_in_threadpool

from app.api import (
    artefacts,
    datasets,
    events,
    health,
    imports,
    jobs,
    keys,
    metrics,
    plans,
    schemas,
    signing_key,
    webhooks,
    workers,
)
from app.api.audit import AuditMiddleware
from app.api.body_limit import BodyLimitMiddleware
from app.api.deps import Services
from app.api.hub.application import hub_body_limits, install_hub
from app.api.nul_guard import NulGuardMiddleware
from app.api.problems import Problem, install_problems
from app.api.quotas import QuotaMiddleware
from app.api.request_log import RequestLogMiddleware
from app.auth.holders import Holders
from app.auth.logins import Logins
from app.background import Background
from app.db.session import connect, session_factory
from app.dispatch.queue import make_celery
from app.hub.context import HubContext
from app.hub.uploads import Uploads
from app.hub.upstream.opening import open_upstream
from app.jobs import marks
from app.jobs.door import Door
from app.jobs.marks import Mark
from app.jobs.watching import Watcher
from app.logs import configure_logging
from app.provenance.signing import load_signer
from app.settings import EMBEDDED_BROKER, Settings
from app.storage.opening import open_stores
from app.tracing import configure_tracing, flush
from app.version import VERSION
from app.web import assets
from app.web import compare as compare_page
from app.web import datasets as datasets_page
from app.web import deliveries as delivery_pages
from app.web import job as job_page
from app.web import jobs as jobs_page
from app.web import keys as keys_page
from app.web import login as login_page
from app.web import models as model_pages
from app.web import new as new_page
from app.web import webhooks as webhooks_page
from app.web import workers as workers_page
from app.web.nothing_here import install_nothing_here
from app.webhooks.addresses import AllowList
from app.webhooks.dispatcher import Post
from app.webhooks.sending import Sender
from app.webhooks.signatures import PURPOSE, SecretBox

_FRAMEWORK_ERRORS = ("HTTPValidationError", "ValidationError")
_LOGIN_KEY_FILE = "logins.key"  # on disk that every API process of this service shares
_FORM_OVERHEAD_BYTES = 1 << 16  # boundaries, part headers and the name around an upload


def create_app(settings: Settings) -> FastAPI:
    """Make the application; nothing is connected to before its first request or its lifespan."""
    configure_logging()
    configure_tracing("streamline-api")
    engine = connect(settings.database)
    services = _services(settings, session_factory(engine), session_factory(engine, read_only=True))

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        background = Background(services)
        await run_in_threadpool(background.start)
        try:
            yield
        finally:
            await run_in_threadpool(background.stop)
            if services.mirror is not None:
                services.mirror.close()
            engine.dispose()
            await run_in_threadpool(flush)

    app = FastAPI(
        title="Streamline",
        version=VERSION,
        summary="Compress large language models: prune layers, train one light replacement, prove the result.",
        lifespan=lifespan,
        webhooks=webhooks.messages,
        separate_input_output_schemas=False,
        docs_url=None,  # served below, from this machine: FastAPI's own page loads its scripts from elsewhere
        redoc_url=None,
        swagger_ui_oauth2_redirect_url=None,
    )
    app.state.services = services
    app.state.settings = settings
    app.state.celery = services.celery
    app.state.read_sessions = services.read_sessions
    modules = (
        *(jobs, plans, events, artefacts, webhooks, keys, schemas, datasets, imports, workers, signing_key),
        *(health, metrics, assets, login_page),
        *(jobs_page, job_page, new_page, compare_page, model_pages, datasets_page, webhooks_page, delivery_pages),
        *(workers_page, keys_page),
    )
    routers = [module.router for module in modules]
    install_problems(app, routers)
    install_nothing_here(app)
    for router in routers:
        app.include_router(router)
    patch_fastapi(
        app,
        redirect_from_root_to_docs=False,
        swagger_js_url="/docs/swagger-ui-bundle.js",
        swagger_css_url="/docs/swagger-ui.css",
        swagger_favicon_url="/docs/favicon.png",
    )
    upload_limit = settings.max_dataset_bytes + _FORM_OVERHEAD_BYTES
    limits = {"/v1/datasets": upload_limit} | hub_body_limits(settings.max_upload_bytes)
    # Before the hub, and so inside of what it adds: limits go by the paths that the routes see.
    app.add_middleware(BodyLimitMiddleware, max_bytes=settings.max_body_bytes, by_path=limits)
    # At the root, where HF_ENDPOINT points: behind everything else.
    install_hub(
        app,
        HubContext(
            services.read_sessions,
            services.sessions,
            services.blobs,
            Uploads(settings.uploads_dir, max_bytes=settings.max_upload_bytes),
            services.logins,
            model_roots=settings.model_roots,
            public_url=settings.public_url,
            mirror=services.mirror,
        ),
    )
    app.add_middleware(NulGuardMiddleware)
    app.add_middleware(QuotaMiddleware, holders=services.holders, sessions=services.sessions)
    app.add_middleware(AuditMiddleware, holders=services.holders, sessions=services.sessions)
    app.add_middleware(RequestLogMiddleware)
    _describe_problems(app)
    return app


def _services(settings: Settings, sessions: Any, read_sessions: Any) -> Services:
    below, artefacts = open_stores(settings, sessions)
    upstream = open_upstream(settings, sessions, read_sessions, below)
    blobs = upstream.store if upstream else below
    mirror = upstream.mirror if upstream else None

    def read_marks(job_ids: Iterable[str]) -> dict[str, Mark]:
        with read_sessions() as session:
            return marks.read_all(session, job_ids)

    signer = load_signer(settings)
    post = Post(
        sessions,
        read_sessions,
        SecretBox(signer.key_for(PURPOSE)),
        AllowList.of(settings.webhook_private),
        Sender(),
        settings.webhook_disable_days,
    )
    logins = Logins(settings.data_dir.absolute() / _LOGIN_KEY_FILE)
    return Services(
        settings=settings,
        sessions=sessions,
        read_sessions=read_sessions,
        blobs=blobs,
        artefacts=artefacts,
        signer=signer,
        logins=logins,
        holders=Holders(read_sessions, logins),
        celery=make_celery(settings),
        mirror=mirror,
        door=Door(
            read_sessions,
            blobs,
            mirror=mirror,
            vllm=_has_vllm(settings),
            task_data=settings.task_data,
            largest_worker_memory=settings.largest_worker_memory,
        ),
        watcher=Watcher(read_marks),
        post=post,
    )


def _has_vllm(settings: Settings) -> bool | None:
    """Whether the workers have vLLM: with the embedded broker they run from this very installation, else who knows."""
    return importlib.util.find_spec("vllm") is not None if settings.broker == EMBEDDED_BROKER else None


def _describe_problems(app: FastAPI) -> None:
    """Put our problem documents into the OpenAPI document in place of the framework's own validation errors."""
    describe = app.openapi

    def with_problem() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = describe()
            schemas = document.setdefault("components", {}).setdefault("schemas", {})
            models = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
            schemas |= models.pop("$defs", {}) | {"Problem": models}
            for name in _FRAMEWORK_ERRORS:
                schemas.pop(name, None)
            described = (*document["paths"].values(), *document.get("webhooks", {}).values())
            for operation in (found for path in described for found in path.values()):
                # Added to every route with a parameter, also where any text will do.
                if _FRAMEWORK_ERRORS[0] in str(operation["responses"].get("422")):
                    del operation["responses"]["422"]
        assert app.openapi_schema is not None
        return app.openapi_schema

    app.openapi = with_problem  # type: ignore[method-assign]
