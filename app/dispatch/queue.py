"""The Celery application as both sides configure it, and `enqueue`.

A message carries a job's id and nothing else: it is a hint to look at the row. Losing one costs a wait until the
reconciler announces the job again; getting one twice costs one UPDATE that changes nothing.
"""

import structlog
from celery import Celery
from kombu.exceptions import OperationalError

from app.dispatch import folder
from app.settings import EMBEDDED_BROKER, Settings

RUN_JOB = "streamline.run_job"
QUEUE = "streamline"

log = structlog.get_logger(__name__)


def make_celery(settings: Settings) -> Celery:
    """Celery as the API and the worker configure it.

    No result backend (the row has the result, and publishing with the broker down would hang on it); early
    acknowledgement (a late one is delivered again by Redis after its visibility timeout, while the job still runs).
    """
    embedded = settings.broker == EMBEDDED_BROKER
    celery = Celery("streamline", broker=f"{folder.SCHEME}://" if embedded else settings.broker, set_as_current=False)
    celery.conf.update(
        task_default_queue=QUEUE,
        task_acks_late=False,
        task_ignore_result=True,
        task_serializer="json",
        accept_content=["json"],
        worker_concurrency=1,
        worker_prefetch_multiplier=1,
        worker_enable_remote_control=False,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        broker_connection_retry_on_startup=True,
        task_publish_retry=False,
    )
    if embedded:
        folders = {name: settings.broker_dir / name for name in ("queue", "control", "processed")}
        for path in folders.values():
            path.mkdir(parents=True, exist_ok=True)
        celery.conf.broker_transport_options = {
            "data_folder_in": str(folders["queue"]),
            "data_folder_out": str(folders["queue"]),
            "control_folder": str(folders["control"]),
            "processed_folder": str(folders["processed"]),
            "polling_interval": 0.2,
        }
    else:
        # Redis only: a busy worker holds no other job's message back.
        celery.conf.worker_disable_prefetch = True
        # A broker that is away must not hold a request up: one try, and the reconciler announces the job later.
        celery.conf.broker_transport_options = {
            "socket_connect_timeout": 2,
            "socket_timeout": 10,
            "max_retries": 1,
            "interval_start": 0,
            "interval_step": 0.1,
            "interval_max": 0.1,
        }
    return celery


def enqueue(celery: Celery, job_id: str) -> bool:
    """Announce a queued job; False (and a log line) when the broker is away: the reconciler announces it again."""
    try:
        celery.send_task(RUN_JOB, args=[job_id], retry=False)
    except (OperationalError, OSError) as error:
        log.warning("announcement_failed", job_id=job_id, error=type(error).__name__)
        return False
    return True


def broker_reachable(celery: Celery, timeout: float = 1.0) -> bool:
    """Whether the broker answers (readiness)."""
    try:
        with celery.connection_for_write(connect_timeout=timeout) as connection:
            connection.ensure_connection(max_retries=0, timeout=timeout)
    except (OperationalError, OSError):
        return False
    return True
