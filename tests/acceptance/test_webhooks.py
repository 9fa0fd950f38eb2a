"""Webhooks with the service as real processes: what a worker's transaction wrote, the API's senders deliver."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy.orm import Session, sessionmaker

from app.db.session import connect, session_factory
from app.jobs import repository
from app.settings import load_settings
from tests.acceptance.backends import SERVERS, backend
from tests.service_process import QUICK_JOB, ServiceProcesses, running_service, wait_until
from tests.webhook_receiver import Receiver


@backend(SERVERS)
def test_the_end_of_a_job_reaches_a_receiver_although_the_api_was_dead_when_it_came(
    environment: dict[str, str], tmp_path: Path
) -> None:
    allowed = environment | {"STREAMLINE_WEBHOOK_PRIVATE": "127.0.0.1"}
    with running_service(tmp_path / "data", allowed) as service, Receiver().listening() as receiver:
        with service.client() as client:
            made = client.add_webhook(receiver.url)
            receiver.secrets.append(made["secret"])
            job = client.submit(QUICK_JOB)["id"]
            wait_until(lambda: client.job(job)["state"] == "running", what="the job runs")
        assert service.api is not None
        service.api.kill()
        service.api.wait()
        with _database(service) as sessions:
            wait_until(lambda: _state(sessions, job) == "succeeded", what="the job is over")
        assert receiver.requests == []
        service.start_api()
        with service.client() as client:
            # It has been taken before the sender writes so.
            wait_until(
                lambda: [one["state"] for one in client.deliveries(made["id"])["items"]] == ["delivered"],
                what="the message was taken",
            )
            ((message_id, message),) = receiver.taken
            assert message["type"] == "job.succeeded"
            assert message["data"]["id"] == job
            assert message["timestamp"] == client.job(job)["finished_at"]
            (delivery,) = client.deliveries(made["id"])["items"]
            assert (delivery["id"], delivery["state"], delivery["attempts"]) == (message_id, "delivered", 1)
        assert made["secret"] not in service.logs()


@contextmanager
def _database(service: ServiceProcesses) -> Iterator[sessionmaker[Session]]:
    """What the worker writes, while nobody serves it."""
    url = service.environment.get("STREAMLINE_DATABASE_URL")
    engine = connect(load_settings(data_dir=service.data_dir, database_url=url).database)
    yield session_factory(engine, read_only=True)
    engine.dispose()


def _state(sessions: sessionmaker[Session], job: str) -> str:
    with sessions() as session:
        row = repository.get(session, job)
        assert row is not None
        return row.state
