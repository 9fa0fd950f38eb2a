"""The worker process: a Celery worker that carries out one job at a time.

The thread pool, because the supervisor only waits: a forked child could use no GPU that its parent touched, and a slow
import in it trips Celery's start-up timeout. The engine is a process of its own in any case.
"""

import threading
from typing import Any

import structlog
from celery import Celery
from celery.signals import setup_logging, worker_shutting_down

from app.core.leash import follow_parent
from app.db.session import connect, session_factory
from app.dispatch.queue import make_celery, queues_to_take
from app.hub.upstream.opening import open_upstream
from app.provenance.signing import load_signer
from app.settings import Settings
from app.storage.blobs import StorageError
from app.storage.opening import open_stores
from worker.device_memory import memory_of_worker
from worker.presence import Presence
from worker.supervisor import WorkerContext, worker_name
from worker.tasks import register
from worker.workspaces import remove_finished

log = structlog.get_logger(__name__)


def make_worker_app(settings: Settings, memory_bytes: int | None) -> tuple[Celery, Presence]:
    """Celery with the task registered, and what says that this worker is there.

    SIGTERM lets the job under way be given back. `memory_bytes` is of the GPU that jobs are taken for; None: of any.
    """
    stopping = threading.Event()

    def stop(**_: Any) -> None:
        stopping.set()

    worker_shutting_down.connect(stop, weak=False)
    setup_logging.connect(_leave_logging, weak=False)
    celery = make_celery(settings)
    engine = connect(settings.database)
    sessions = session_factory(engine)
    read_sessions = session_factory(engine, read_only=True)
    store, artefacts = open_stores(settings, sessions)
    upstream = open_upstream(settings, sessions, read_sessions, store)
    context = WorkerContext(
        settings=settings,
        sessions=sessions,
        read_sessions=read_sessions,
        store=upstream.store if upstream else store,
        upstream=upstream.store if upstream else None,
        artefacts=artefacts,
        signer=load_signer(settings),
        memory_bytes=memory_bytes,
        stopping=stopping,
    )
    # What a killed process left half-written; files that another process is writing are told apart by their locks.
    try:
        store.collect_abandoned()
        artefacts.collect_abandoned()
    except (OSError, StorageError) as error:
        log.warning("abandoned_files_not_collected", error=type(error).__name__, detail=str(error))
    remove_finished(settings.work_dir, context.read_sessions)
    register(celery, context)
    return celery, Presence(sessions, worker_name(), memory_bytes)


def _leave_logging(**_: Any) -> None:
    """Celery sets nothing up where somebody has: its lines go the way of all others (`app.logs`)."""


def run_worker(settings: Settings, *, leashed: bool) -> None:
    """Work until SIGTERM; with `leashed`, also until the parent's death.

    Raises:
        SettingsError: the memory of the device was to be found out, and it does not tell.
    """
    if leashed:
        follow_parent()
    memory = memory_of_worker(settings)
    settings = settings.model_copy(update={"worker_memory": memory})
    celery, presence = make_worker_app(settings, memory)
    queues = queues_to_take(celery, memory)
    log.info("worker_starts", memory_bytes=memory, queues=queues)
    with presence:
        celery.Worker(
            pool="threads",
            concurrency=1,
            queues=list(queues),
            loglevel="WARNING",
            quiet=True,
            without_gossip=True,
            without_mingle=True,
            without_heartbeat=True,
        ).start()
