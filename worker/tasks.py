"""The one Celery task."""

from celery import Celery

from app.dispatch.queue import RUN_JOB
from worker.supervisor import WorkerContext, run_job


def register(celery: Celery, context: WorkerContext) -> None:
    """Make `celery` answer to messages that announce a job."""

    @celery.task(name=RUN_JOB, ignore_result=True)  # type: ignore[untyped-decorator]
    def run(job_id: str) -> None:
        run_job(job_id, context)
