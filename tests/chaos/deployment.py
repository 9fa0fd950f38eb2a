"""Two API replicas and four workers over a Postgres and a Redis of their own, with a network that can be broken."""

import json
import os
import signal
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil

from app.client import Streamline
from tests.chaos.proxy import Proxy
from tests.chaos.servers import Server, own_postgres, own_redis
from tests.service_process import QUICK_JOB, REPOSITORY, ServiceProcesses, Stages, wait_until
from tests.webhook_receiver import Receiver

WORKERS = 4
LEASE_SECONDS = 6
CLOCK_SHIFTS = (0, 300, -300, 7200)
"""Seconds; a worker's clock is wrong as long as it lives."""
_WRONG_CLOCK = """
import time

_time, _time_ns = time.time, time.time_ns
time.time = lambda: _time() + ({shift})
time.time_ns = lambda: _time_ns() + ({shift}) * 10**9
"""
_TEXT = "Once upon a time there was a little girl who liked to play in the park with her mom. " * 3


class Deployment:
    """The whole service as processes, and every fault that this machine can have without being switched off."""

    def __init__(
        self, data_dir: Path, postgres: Server, redis: Server, proxies: dict[str, Proxy], receiver: Receiver
    ) -> None:
        self.postgres, self.redis = postgres, redis
        self.receiver = receiver
        """Told how every job ends: it is never down, all that can go wrong is on this side."""
        self.database, self.broker, self.lonely = (proxies[name] for name in ("database", "broker", "lonely"))
        self.faults = 0
        environment = {
            "STREAMLINE_DATABASE_URL": self._database_url(self.database),
            "STREAMLINE_BROKER_URL": f"redis://127.0.0.1:{self.broker.port}/0",
            "STREAMLINE_HEARTBEAT_SECONDS": "1",
            "STREAMLINE_LEASE_SECONDS": f"{LEASE_SECONDS}",
            "STREAMLINE_WEBHOOK_PRIVATE": "127.0.0.1",
            # Faults come faster here than a stage takes; what a job may cost is tested elsewhere.
            "STREAMLINE_MAX_ATTEMPTS": "50",
            "OMP_NUM_THREADS": "1",
        }
        self.replicas = [ServiceProcesses(data_dir, environment) for _ in range(2)]
        self._text = data_dir / "words.jsonl"
        self.job = QUICK_JOB | {"replacement": {"kind": "none", "tokens": 2048}}

    @staticmethod
    def _database_url(proxy: Proxy) -> str:
        return f"postgresql+psycopg://postgres@127.0.0.1:{proxy.port}/postgres"

    @property
    def service(self) -> ServiceProcesses:
        """The replica that the workers are counted under."""
        return self.replicas[0]

    def start(self) -> None:
        self.service.migrate()
        for replica in self.replicas:
            replica.start_api()
        self.service.import_shallow_model()
        # Text to calibrate on, which each job would write itself otherwise: a fifth of its time.
        self._text.write_text(f"{json.dumps({'text': _TEXT})}\n" * 100)
        with self.client() as client:
            self.job |= {"calibration": {"dataset": client.upload_dataset(self._text)["id"]}}
            self.receiver.secrets.append(client.add_webhook(self.receiver.url, jobs="visible")["secret"])
        for number in range(WORKERS):
            self.start_worker(lonely=number == WORKERS - 1)

    def start_worker(self, *, lonely: bool = False) -> None:
        """One more worker, its clock wrong by minutes; a lonely one has a connection to the database of its own."""
        shift = CLOCK_SHIFTS[len(self.service.workers) % len(CLOCK_SHIFTS)]
        directory = self.service.data_dir / f"clock{shift:+d}"
        directory.mkdir(exist_ok=True)
        (directory / "sitecustomize.py").write_text(_WRONG_CLOCK.format(shift=shift))
        more = {"STREAMLINE_DATABASE_URL": self._database_url(self.lonely)} if lonely else {}
        self.service.start_worker(PYTHONPATH=f"{directory}:{REPOSITORY}", **more)

    def stop(self) -> None:
        for proxy in (self.database, self.broker, self.lonely):
            proxy.mend()
        for replica in self.replicas:
            replica.stop()

    # --- what clients do ---------------------------------------------------------------------------------------------

    def submit(self, count: int) -> list[str]:
        """Ids of new jobs, each sent again with its Idempotency-Key until it has its 202, to either replica."""
        return [self.submit_one(uuid.uuid4().hex) for _ in range(count)]

    def at_work(self, count: int) -> list[str]:
        """Ids of new jobs, each of which has an engine."""
        jobs = self.submit(count)
        for job_id in jobs:
            self.wait_for_engine(job_id)
        return jobs

    def submit_one(self, key: str) -> str:
        """The id of the job of this key."""
        found: list[str] = []

        def accepted() -> bool:
            for replica in self.replicas:
                try:
                    answer = httpx.post(
                        f"{replica.url}/v1/jobs",
                        json=self.job | {"output": {"repo": f"chaos/{key}"}, "labels": {"key": key}},
                        headers={"Idempotency-Key": key},
                        timeout=30,
                    )
                except httpx.HTTPError:
                    continue
                if answer.status_code == 202:
                    found.append(answer.json()["id"])
                    return True
                assert answer.status_code in {409, 503}, answer.text
            return False

        wait_until(accepted, seconds=600, what="a replica accepts the job")
        return found[0]

    def client(self) -> Streamline:
        return self.service.client()

    def running(self, job_id: str) -> bool:
        with self.client() as client:
            return bool(client.job(job_id)["state"] == "running")

    def wait_for_engine(self, job_id: str) -> None:
        wait_until(lambda: self.service.engines(job_id), seconds=600, what=f"job {job_id} has an engine")

    # --- faults ------------------------------------------------------------------------------------------------------

    def alive(self) -> list[int]:
        """Numbers of the workers that are alive."""
        return [number for number, worker in enumerate(self.service.workers) if worker.poll() is None]

    def kill_engine(self, job_id: str) -> None:
        for process in self.service.engines(job_id):
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
            self.faults += 1

    def kill_worker(self, number: int) -> None:
        """SIGKILL, and another one in its place."""
        self.service.workers[number].kill()
        self.service.workers[number].wait()
        self.faults += 1
        self.start_worker()

    def worker_of(self, job_id: str) -> int | None:
        """Number of the worker whose child is the job's engine."""
        parents = {process.ppid() for process in self.service.engines(job_id) if process.is_running()}
        return next((n for n in self.alive() if self.service.workers[n].pid in parents), None)

    def kill_api(self, number: int) -> None:
        replica = self.replicas[number]
        assert replica.api is not None
        replica.api.kill()
        replica.api.wait()
        self.faults += 1
        replica.start_api()

    def kill_machine(self) -> None:
        """Everything at once, as when the power goes; then everything is started again."""
        for number in self.alive():
            self.service.workers[number].kill()
            self.service.workers[number].wait()
        for replica in self.replicas:
            assert replica.api is not None
            replica.api.kill()
            replica.api.wait()
        self.postgres.kill(signal.SIGQUIT)
        self.redis.kill()
        self.faults += 1
        self.postgres.start()
        self.redis.start()
        for replica in self.replicas:
            replica.start_api()
        for number in range(WORKERS):
            self.start_worker(lonely=number == WORKERS - 1)

    # --- what must hold ----------------------------------------------------------------------------------------------

    def outcome(self, job_ids: list[str], *, seconds: float = 600) -> dict[str, Any]:
        """Wait for the jobs, and count what was lost and what was done twice; the hashes of their checkpoints."""
        lost, doubled, hashes = 0, 0, set()
        with self.client() as client:
            for job_id in job_ids:
                job = client.wait(job_id, timeout=seconds)
                if job["state"] != "succeeded":
                    print(f"{job_id}: {job['state']}: {job['error']}")
                    lost += 1
                    continue
                hashes.add(job["result"]["checkpoint_sha256"])
                stages = Stages(client, job_id)
                stages.look()
                ends = [
                    event
                    for event in client.events(job_id)
                    if event["event"] == "state" and event["data"]["state"] == "succeeded"
                ]
                commits = httpx.get(f"{self.service.url}/api/models/{job['result']['repo']}/commits/main").json()
                twice = len(stages.finished) > len(set(stages.finished))
                doubled += len(ends) != 1 or len(commits) != 1 or twice
        return {"jobs": len(job_ids), "lost": lost, "doubled": doubled, "hashes": hashes}

    def told(self, *, seconds: float = 240) -> dict[str, int]:
        """Wait until the receiver was told of every job that has succeeded; count what it was told, and what not.

        The time is that of a sender's lease and another attempt: one that died in the middle holds its message so long.
        """
        ended, cursor = set[str](), None
        with self.client() as client:
            while True:
                page = client.jobs(state="succeeded", limit=100, cursor=cursor)
                ended |= {job["id"] for job in page["items"]}
                cursor = page["next_cursor"]
                if cursor is None:
                    break
        deadline = time.monotonic() + seconds
        while ended - self._heard() and time.monotonic() < deadline:
            time.sleep(0.1)
        messages = [message_id for message_id, _ in self.receiver.taken]
        return {
            "jobs": len(ended),
            "untold": len(ended - self._heard()),
            "again": len(messages) - len(set(messages)),
            "badly signed": len(self.receiver.refused),
        }

    def _heard(self) -> set[str]:
        return {body["data"]["id"] for _, body in list(self.receiver.taken) if body["type"] == "job.succeeded"}


@contextmanager
def running_deployment(data_dir: Path) -> Iterator[Deployment]:
    """A started deployment; everything is stopped at the end, and the logs are shown on failure."""
    with ExitStack() as stack:
        postgres, redis = stack.enter_context(own_postgres()), stack.enter_context(own_redis())
        proxies = {
            "database": stack.enter_context(Proxy(postgres.port)),
            "lonely": stack.enter_context(Proxy(postgres.port)),
            "broker": stack.enter_context(Proxy(redis.port)),
        }
        receiver = stack.enter_context(Receiver().listening())
        deployment = Deployment(data_dir, postgres, redis, proxies, receiver)
        try:
            deployment.start()
            yield deployment
        except BaseException:
            print(deployment.service.logs())
            raise
        finally:
            deployment.stop()


def suspend(process_id: int) -> None:
    """SIGSTOP: alive, and deaf."""
    os.kill(process_id, signal.SIGSTOP)
