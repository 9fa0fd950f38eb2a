"""Every fault that a machine, a network or a server can have, put into a service at work: nothing lost, nothing twice.

Each test prints a line with what was done and what came of it. All share one deployment, as a week of bad luck would.
"""

import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from tests.chaos.deployment import LEASE_SECONDS, Deployment, running_deployment, suspend
from tests.service_process import wait_until

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(900)]

Verdict = Callable[[str, list[str]], None]


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    with running_deployment(tmp_path_factory.mktemp("chaos") / "data") as found:
        yield found


@pytest.fixture(scope="module")
def undisturbed(deployment: Deployment) -> str:
    """A job that nobody disturbs: it runs beside the first test, whose fault is no worker's and no engine's."""
    (job_id,) = deployment.at_work(1)
    return job_id


@pytest.fixture
def verdict(
    deployment: Deployment, undisturbed: str, record_property: Callable[[str, object], None]
) -> Iterator[Verdict]:
    """Holds what came of the jobs against the promises, and writes the line."""
    before = deployment.faults
    began = time.monotonic()

    def check(promise: str, job_ids: list[str]) -> None:
        found: dict[str, Any] = deployment.outcome(job_ids)
        expected = deployment.outcome([undisturbed])["hashes"]
        faults = deployment.faults - before
        record_property(
            "promise",
            f"{promise}: {faults} faults, {found['jobs']} jobs, {found['lost']} lost, {found['doubled']} doubled, "
            f"{time.monotonic() - began:.0f} s",
        )
        assert faults > 0
        assert (found["lost"], found["doubled"]) == (0, 0)
        assert found["hashes"] == expected, "the same checkpoint as undisturbed"
        assert len(expected) == 1

    yield check
    for proxy in (deployment.database, deployment.broker, deployment.lonely):
        proxy.mend()


def test_an_api_that_dies_between_commit_and_publish_makes_one_job(deployment: Deployment, verdict: Verdict) -> None:
    key = uuid.uuid4().hex
    body = deployment.job | {"output": {"repo": f"chaos/{key}"}, "labels": {"key": key}}

    def send() -> None:
        with pytest.raises(httpx.HTTPError):
            httpx.post(f"{deployment.replicas[1].url}/v1/jobs", json=body, headers={"Idempotency-Key": key}, timeout=30)

    def committed() -> bool:
        return bool(httpx.get(f"{deployment.service.url}/v1/jobs", params={"label": f"key={key}"}).json()["items"])

    deployment.broker.silence()  # the announcement that follows the commit hangs
    sender = threading.Thread(target=send)
    sender.start()
    wait_until(committed, what="the job is committed")
    deployment.replicas[1].api.kill()  # type: ignore[union-attr]
    sender.join()
    deployment.broker.mend()
    deployment.kill_api(1)
    job_id = deployment.submit_one(key)
    made = httpx.get(f"{deployment.service.url}/v1/jobs", params={"label": f"key={key}"}).json()["items"]
    assert [job["id"] for job in made] == [job_id]
    verdict("API killed between commit and publish", [job_id])


def test_killed_engines_and_workers_cost_nothing(deployment: Deployment, verdict: Verdict) -> None:
    jobs = deployment.at_work(2)
    deployment.kill_engine(jobs[0])
    wait_until(lambda: deployment.worker_of(jobs[1]) is not None, what="the second job has a worker")
    deployment.kill_worker(deployment.worker_of(jobs[1]) or 0)
    verdict("engines and workers killed", jobs)


def test_a_broker_that_forgets_everything_loses_no_job(deployment: Deployment, verdict: Verdict) -> None:
    import redis

    jobs = deployment.submit(1)
    with redis.Redis(port=deployment.redis.port) as broker:
        broker.flushall()
    jobs += deployment.submit(1)
    deployment.redis.restart()
    deployment.broker.cut()
    jobs += deployment.submit(1)
    time.sleep(1)
    deployment.broker.mend()
    deployment.faults += 3
    verdict("Redis emptied, restarted and cut off", jobs)


def test_a_database_that_restarts_and_drops_connections_in_the_middle_of_the_finish_loses_no_job(
    deployment: Deployment, verdict: Verdict
) -> None:
    jobs = deployment.at_work(1)
    deployment.postgres.restart(signal.SIGQUIT)
    deployment.faults += 1
    for before_commit in (True, False):
        for proxy in (deployment.database, deployment.lonely):
            proxy.cut_in_transaction(b"succeeded", before_commit=before_commit)
        jobs += deployment.submit(1)
        wait_until(
            lambda: not (deployment.database.trap_is_set and deployment.lonely.trap_is_set),
            seconds=600,
            what="a job finishes",
        )
        deployment.faults += 1
    verdict("Postgres restarted, and cut off before and after the finishing COMMIT", jobs)


def test_a_worker_cut_off_or_suspended_beyond_its_lease_works_on_no_job_that_another_has(
    deployment: Deployment, verdict: Verdict
) -> None:
    jobs = deployment.at_work(4)
    victim = deployment.worker_of(jobs[-1])  # the others may have ended by the time that it has begun
    assert victim is not None
    suspend(deployment.service.workers[victim].pid)
    deployment.lonely.silence()
    deployment.database.slow_down(0.05)
    deployment.faults += 3
    time.sleep(1.5 * LEASE_SECONDS)
    deployment.lonely.mend()
    deployment.database.mend()
    deployment.service.workers[victim].send_signal(signal.SIGCONT)
    verdict("a worker suspended, one cut off, the others slowed down, for longer than a lease", jobs)


def test_a_machine_that_dies_goes_on_where_it_was(deployment: Deployment, verdict: Verdict) -> None:
    jobs = deployment.at_work(2)
    deployment.kill_machine()
    verdict("API, workers, engines, Redis and Postgres killed at once", jobs)


def test_whatever_died_the_end_of_every_job_was_told_and_signed(
    deployment: Deployment, undisturbed: str, record_property: Callable[[str, object], None]
) -> None:
    began = time.monotonic()
    deployment.outcome([undisturbed])
    told = deployment.told()
    record_property(
        "promise",
        f"webhooks under all of these: {deployment.faults} faults, {told['jobs']} jobs, {told['untold']} untold, "
        f"{told['again']} messages twice, {told['badly signed']} badly signed, {time.monotonic() - began:.0f} s",
    )
    assert told["jobs"] > 0
    assert (told["untold"], told["badly signed"]) == (0, 0)
