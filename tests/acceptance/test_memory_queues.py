"""Workers of different memory beside each other: the large job waits for the large one, the small jobs do not."""

from pathlib import Path

from sqlalchemy import update

from app.client import Streamline
from app.core.device_memory import card_bytes
from app.db.models import JobRow
from app.db.session import connect, session_factory
from app.dispatch.memory_classes import queue_for
from tests.acceptance.backends import SERVERS, backend
from tests.service_process import QUICK_JOB, running_service, wait_until

SMALL, LARGE = "24g", "80g"
QUICK = QUICK_JOB | {"replacement": {"kind": "none", "tokens": 4096}}


def memories(client: Streamline) -> list[int]:
    return [each["memory_bytes"] for each in client.workers()]


@backend(SERVERS)
def test_a_job_for_a_large_card_waits_for_one_and_holds_no_small_job_up(
    environment: dict[str, str], tmp_path: Path
) -> None:
    import redis

    engine = connect(environment["STREAMLINE_DATABASE_URL"])
    sessions = session_factory(engine)
    with running_service(tmp_path / "data", environment, workers=0) as service, service.client() as client:
        small = client.submit(QUICK)
        assert 10**9 < small["required_memory_bytes"] < card_bytes(8)
        large = client.submit(QUICK)["id"]
        # A small model with the need of a large one; the reconciler sends it to its own queue. The message that is in
        # the queue of small jobs stays there: the claim refuses it.
        with sessions.begin() as session:
            session.execute(
                update(JobRow).where(JobRow.id == large).values(required_memory_bytes=card_bytes(80), published_count=0)
            )
            session.execute(update(JobRow).where(JobRow.id == large).values(published_at=None))
        with redis.Redis.from_url(environment["STREAMLINE_BROKER_URL"]) as broker:
            wait_until(lambda: broker.llen(queue_for(card_bytes(80))), what="the large job has a message of its own")
        service.start_worker(STREAMLINE_WORKER_MEMORY=SMALL)
        wait_until(lambda: client.job(small["id"])["state"] != "queued", what="the small job is taken")
        assert client.job(large)["attempt"] == 0
        # A worker says that it is there beside its work.
        wait_until(lambda: memories(client) == [card_bytes(24)], what="the small worker is seen")
        client.cancel(small["id"])
        wait_until(lambda: client.job(small["id"])["state"] == "cancelled", what="the worker is free again")
        assert client.job(large)["attempt"] == 0, "free, and still too small"
        service.start_worker(STREAMLINE_WORKER_MEMORY=LARGE)
        wait_until(lambda: client.job(large)["state"] == "running", what="the large worker takes the large job")
        wait_until(lambda: memories(client) == [card_bytes(80), card_bytes(24)], what="both workers are seen")
        with sessions() as session:
            row = session.get(JobRow, large)
            assert row is not None
            assert row.lease_owner is not None
            assert row.lease_owner.endswith(f":{service.workers[1].pid}")
        client.cancel(large)
    engine.dispose()
