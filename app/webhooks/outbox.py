"""What is to be told is written down in the transaction that ends the job: with it or not at all.

The message is made here, once, so that every attempt sends the same bytes whatever happens to the job afterwards.
"""

from sqlalchemy.orm import Session

from app.db.models import JobRow, WebhookRow
from app.webhooks import deliveries, repository
from app.webhooks.views import EVENTS, EndedJob, EventName, JobEnded


def job_ended(session: Session, job_id: str) -> None:
    """Note a message for each endpoint that wants to hear of the job's end and whose owner may know of the job."""
    for webhook in repository.listeners(session, job_id):
        tell(session, webhook, job_id)


def tell(session: Session, webhook: WebhookRow, job_id: str) -> None:
    """Note a message for this endpoint, if the job has ended in a way that it wants to hear of, and may."""
    job = repository.job_heard_of(session, webhook.owner, job_id)
    event = None if job is None else _event_of(job)
    if job is None or event is None or event not in webhook.events:
        return
    payload = _message(job, event, webhook.service_url).model_dump_json()
    # The event about the end is the job's last one: this transaction holds its row.
    deliveries.add(session, webhook.id, job_id, job.event_count, event=event, payload=payload)


def _event_of(job: JobRow) -> EventName | None:
    return next((event for event in EVENTS if event == f"job.{job.state}"), None)


def _message(job: JobRow, event: EventName, service_url: str) -> JobEnded:
    assert job.finished_at is not None, "an end has a time"
    url = f"{service_url}/v1/jobs/{job.id}"
    result, error = job.result or {}, job.error or {}
    succeeded = event == "job.succeeded"
    data = EndedJob.model_validate(
        {
            "id": job.id,
            "state": job.state,
            "verdict": job.verdict,
            "model": job.model,
            "output": f"{result['repo']}@{result['revision']}" if "revision" in result else None,
            "labels": job.labels,
            "error_code": error.get("code"),
            "job_url": url,
            "report_url": f"{url}/report" if succeeded else None,
        }
    )
    return JobEnded(type=event, timestamp=job.finished_at, data=data)
