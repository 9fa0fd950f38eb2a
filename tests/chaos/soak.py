"""A steady stream of jobs under random faults for as long as one likes, and what is left behind at the end.

python -m tests.chaos.soak --minutes 30 --seed 0
"""

import argparse
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import psutil
import psycopg
import redis

from tests.chaos.deployment import LEASE_SECONDS, Deployment, running_deployment, suspend

_IN_FLIGHT = 3
_SETTLE_SECONDS = 10  # the last requests' connections, the reconciler's and the collector's rounds
_POOLED = 60  # two replicas with a pool of up to 30 connections each


def _silence(deployment: Deployment, chance: random.Random) -> None:
    proxy = chance.choice([deployment.database, deployment.broker, deployment.lonely])
    chance.choice([proxy.silence, proxy.cut])()
    deployment.faults += 1
    time.sleep(chance.uniform(0.5, 1.5 * LEASE_SECONDS))
    proxy.mend()


def _forget(deployment: Deployment, _: random.Random) -> None:
    with redis.Redis(port=deployment.redis.port) as broker:
        broker.flushall()
    deployment.faults += 1


def _restart(deployment: Deployment, chance: random.Random) -> None:
    chance.choice([deployment.redis.restart, lambda: deployment.postgres.restart(signal.SIGQUIT)])()
    deployment.faults += 1


def _suspend(deployment: Deployment, chance: random.Random) -> None:
    worker = deployment.service.workers[chance.choice(deployment.alive())]
    suspend(worker.pid)
    deployment.faults += 1
    time.sleep(chance.uniform(1, 2 * LEASE_SECONDS))
    worker.send_signal(signal.SIGCONT)


def _kill_worker(deployment: Deployment, chance: random.Random) -> None:
    deployment.kill_worker(chance.choice(deployment.alive()))


def _kill_api(deployment: Deployment, chance: random.Random) -> None:
    deployment.kill_api(chance.randrange(2))


def _kill_machine(deployment: Deployment, _: random.Random) -> None:
    deployment.kill_machine()


FAULTS: dict[str, Callable[[Deployment, random.Random], None]] = {
    "worker killed": _kill_worker,
    "API killed": _kill_api,
    "network silent or cut": _silence,
    "Redis emptied": _forget,
    "server restarted": _restart,
    "worker suspended": _suspend,
    "everything killed": _kill_machine,
}


@dataclass(frozen=True)
class Footprint:
    """What a deployment without work holds; it must not grow however long it has been up, and whatever has happened."""

    processes: int
    """Of this deployment: replicas, workers, engines and what they started."""
    handles: int
    """Files and connections of the two replicas."""
    connections: int
    """Of all processes to Postgres."""
    files: int
    """Half-written ones, and workspaces of jobs."""

    @classmethod
    def of(cls, deployment: Deployment) -> Self:
        """As it is now."""
        replicas = [psutil.Process(replica.api.pid) for replica in deployment.replicas if replica.api]
        data = deployment.service.data_dir
        places = [data / name for name in ("store/staging", "uploads/staging", "uploads/parts", "work")]
        with psycopg.connect(port=deployment.postgres.port, host="127.0.0.1", user="postgres") as server:
            row = server.execute("SELECT count(*) FROM pg_stat_activity WHERE client_port IS NOT NULL").fetchone()
        return cls(
            processes=len(_processes(data)),
            handles=sum(process.num_fds() for process in replicas),
            connections=row[0] - 1 if row else 0,  # our own
            files=sum(len(list(place.iterdir())) for place in places if place.is_dir()),
        )

    def grown(self, since: "Footprint") -> bool:
        """Whether more is held than pools and caches explain."""
        return (
            self.processes > since.processes
            or self.files > since.files
            or self.connections > since.connections + _POOLED
            or self.handles > since.handles + _POOLED
        )


def _processes(data: Path) -> list[psutil.Process]:
    """Every process of this deployment, told by its environment or its command line."""
    found = []
    for process in psutil.process_iter():
        try:
            said = [*process.cmdline(), process.environ().get("STREAMLINE_DATA_DIR", "")]
            if process.status() != psutil.STATUS_ZOMBIE and any(str(data) in word for word in said):
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def main() -> int:
    """Run, print a line a minute and the outcome; 1 where something was lost, doubled or left behind."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.soak", description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    chance, done, jobs = random.Random(options.seed), Counter[str](), list[str]()
    with tempfile.TemporaryDirectory() as data, running_deployment(Path(data) / "data") as deployment:
        (undisturbed,) = deployment.outcome(deployment.submit(1))["hashes"]
        time.sleep(_SETTLE_SECONDS)
        before = Footprint.of(deployment)
        end = time.monotonic() + 60 * options.minutes
        report_at = time.monotonic()
        with deployment.client() as client:
            while time.monotonic() < end:
                waiting = [job for job in jobs[-2 * _IN_FLIGHT :] if client.job(job)["state"] in {"queued", "running"}]
                jobs += deployment.submit(max(0, _IN_FLIGHT - len(waiting)))
                name = chance.choice(list(FAULTS))
                FAULTS[name](deployment, chance)
                done[name] += 1
                time.sleep(chance.uniform(2, 15))
                if time.monotonic() > report_at:
                    report_at += 60
                    print(f"{len(jobs)} jobs, {deployment.faults} faults {dict(done)}", flush=True)
        outcome = deployment.outcome(jobs, seconds=600)
        told = deployment.told()
        time.sleep(_SETTLE_SECONDS)
        after = Footprint.of(deployment)
    left = [" ".join(process.cmdline())[:200] for process in _processes(deployment.service.data_dir)]
    same = outcome["hashes"] == {undisturbed}
    print(
        f"{deployment.faults} faults {dict(done)}, {outcome['jobs']} jobs, {outcome['lost']} lost, "
        f"{outcome['doubled']} doubled, the same checkpoint: {same}\nwebhooks: {told}\n"
        f"before: {before}\nafter:  {after}\nprocesses left behind at the end: {left}"
    )
    wrong = (outcome["lost"], outcome["doubled"], told["untold"], told["badly signed"], left, after.grown(before))
    good = same and not any(wrong)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
