"""What the API does beside its requests, in threads: from when the database is there to when the service stops."""

import threading
from collections.abc import Callable
from functools import partial
from typing import Final

import structlog
from sqlalchemy.exc import SQLAlchemyError

from app.api.deps import Services
from app.dispatch.queue import enqueue
from app.hub.bundled import import_bundled
from app.jobs.reconciler import run_reconciler
from app.storage.blobs import StorageError
from app.storage.collection import run_collector
from app.upkeep import run_upkeep
from app.webhooks.dispatcher import SENDERS, run_sender

_LOOK_AGAIN_SECONDS: Final = 5.0
_SENDERS_LEAVE_SECONDS: Final = 1.0

log = structlog.get_logger(__name__)


class Background:
    """The threads of one API process. None of them runs on a database that lacks a migration: each would fail on it."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._stop = threading.Event()
        self._told = ""
        self._beginning = threading.Thread(target=self._begin, name="begin", daemon=True)
        self._threads: list[threading.Thread] = []
        self._senders: list[threading.Thread] = []

    def start(self) -> None:
        """Begin; where the database is there, the bundled model is too when this returns."""
        _remove_abandoned(self._services)
        if self._database_is_there():
            self._work()
        else:
            self._beginning.start()

    def stop(self) -> None:
        """End, and wait for all but slow receivers: what those were sent is sent again, under the same id."""
        self._stop.set()
        if self._beginning.is_alive():
            self._beginning.join()
        for thread in self._threads:
            thread.join()
        for sender in self._senders:
            sender.join(_SENDERS_LEAVE_SECONDS)

    def _begin(self) -> None:
        while not self._stop.wait(_LOOK_AGAIN_SECONDS):
            if self._database_is_there():
                log.info("database_is_there")
                self._work()
                return

    def _database_is_there(self) -> bool:
        """Whether it answers and has this release's schema; what is wrong with it is told once."""
        from app.db.migrate import is_behind  # alembic is slow to import, and whoever imports this needs nothing of it

        try:
            with self._services.read_sessions() as session:
                if not is_behind(session):
                    return True
            self._tell("database_behind", "The database lacks a migration of this release; run `streamline migrate`.")
        except SQLAlchemyError as error:
            self._tell("database_away", f"The database does not answer ({type(error).__name__}); it is asked again.")
        return False

    def _tell(self, event: str, detail: str) -> None:
        if self._told != event:
            self._told = event
            log.warning(event, detail=detail)

    def _work(self) -> None:
        try:
            import_bundled(self._services.sessions, self._services.blobs)
        except (SQLAlchemyError, StorageError) as error:
            log.warning("bundled_model_not_imported", error=type(error).__name__, detail=str(error))
        self._threads += [self._thread(work) for work in (_reconcile, _collect, _keep_up)]
        self._senders += [self._thread(_send, f"-{number}") for number in range(SENDERS)]
        for thread in (*self._threads, *self._senders):
            thread.start()

    def _thread(self, work: Callable[[Services, threading.Event], None], suffix: str = "") -> threading.Thread:
        name = work.__name__.strip("_") + suffix
        return threading.Thread(target=work, args=(self._services, self._stop), name=name, daemon=True)


def _remove_abandoned(services: Services) -> None:
    # Safe while others write: a living writer holds a lock on its staging file, and locked files are left alone.
    try:
        removed = services.blobs.collect_abandoned() + services.artefacts.collect_abandoned()
        if removed:
            log.info("abandoned_files_removed", files=removed)
    except (OSError, StorageError) as error:
        log.warning("abandoned_files_not_collected", error=type(error).__name__, detail=str(error))


def _reconcile(services: Services, stop: threading.Event) -> None:
    settings = services.settings

    run_reconciler(
        services.sessions,
        partial(enqueue, services.celery),
        stop,
        every_seconds=settings.reconcile_seconds,
        max_attempts=settings.max_attempts,
        republish_seconds=settings.republish_seconds,
    )


def _collect(services: Services, stop: threading.Event) -> None:
    settings = services.settings
    run_collector(
        services.sessions,
        services.blobs,
        stop,
        every_seconds=settings.gc_seconds,
        grace_seconds=settings.gc_grace_seconds,
    )


def _keep_up(services: Services, stop: threading.Event) -> None:
    run_upkeep(services.sessions, services.holders, stop, keep_days=services.settings.webhook_keep_days)


def _send(services: Services, stop: threading.Event) -> None:
    run_sender(services.post, stop, every_seconds=services.settings.reconcile_seconds)
