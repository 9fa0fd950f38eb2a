"""The Celery application as both sides configure it, and `enqueue`.

A message carries a job's id and nothing else: it is a hint to look at the row. Losing one costs a wait until the
reconciler announces the job again; getting one twice costs one UPDATE that changes nothing. Which queue it goes to
depends on the memory that the job needs (`app.dispatch.memory_classes`).
"""

import structlog
from celery import Celery
from kombu.exceptions import OperationalError

from app.dispatch import folder
from app.dispatch.memory_classes import ANY, queue_for, queues_of
from app.settings import EMBEDDED_BROKER, Settings

RUN_JOB = "streamline.run_job"
QUEUE = ANY

log = structlog.get_logger(__name__)


def make_celery(settings: Settings) -> Celery:
    """Celery as the API and the worker configure it.

    No result backend (the row has the result, and publishing with the broker down would hang on it); early
    acknowledgement (a late one is delivered again by Redis after its visibility timeout, while the job still runs).
    """
    embedded = settings.broker == EMBEDDED_BROKER
    celery = Celery(
        "streamline", broker=f"{folder.SCHEME}://localhost" if embedded else settings.broker, set_as_current=False
    )
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
            # In the order of `queues_of` where workers differ; by turns where they do not, so that none waits for ever.
            "queue_order_strategy": "round_robin" if settings.worker_memory is None else "priority",
            "socket_connect_timeout": 2,
            "socket_timeout": 10,
            "max_retries": 1,
            "interval_start": 0,
            "interval_step": 0.1,
            "interval_max": 0.1,
        }
    return celery


def enqueue(celery: Celery, job_id: str, required_bytes: int | None = None) -> bool:
    """Announce a queued job to the workers that have the memory that it needs (None: to all of them).

    False (and a log line) when the broker is away: the reconciler announces it again.
    """
    queue = QUEUE if _is_embedded(celery) else queue_for(required_bytes)
    try:
        celery.send_task(RUN_JOB, args=[job_id], queue=queue, retry=False)
    except (OperationalError, OSError) as error:
        log.warning("announcement_failed", job_id=job_id, error=type(error).__name__)
        return False
    return True


def queues_to_take(celery: Celery, memory_bytes: int | None) -> tuple[str, ...]:
    """Return the queues that a worker of this memory (None: not stated) consumes, the first one first."""
    return (QUEUE,) if _is_embedded(celery) else queues_of(memory_bytes)


def _is_embedded(celery: Celery) -> bool:
    # The workers of one data directory have one environment, and so one memory: a queue is enough.
    return str(celery.conf.broker_url).startswith(f"{folder.SCHEME}://")


def broker_reachable(celery: Celery, timeout: float = 1.0) -> bool:
    """Whether the broker answers (readiness)."""
    try:
        with celery.connection_for_write(connect_timeout=timeout) as connection:
            connection.ensure_connection(max_retries=0, timeout=timeout)
    except (OperationalError, OSError):
        return False
    return True
