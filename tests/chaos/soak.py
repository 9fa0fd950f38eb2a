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
from pathlib import Path

import psutil
import redis

from tests.chaos.deployment import LEASE_SECONDS, Deployment, running_deployment, suspend

_IN_FLIGHT = 3


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


def _open_handles(deployment: Deployment) -> int:
    """Files and connections of the API replicas: what must not grow however long they are up."""
    processes = [psutil.Process(replica.api.pid) for replica in deployment.replicas if replica.api]
    return sum(process.num_fds() for process in processes)


def main() -> int:
    """Run, print a line a minute and the outcome; 1 where something was lost, doubled or left behind."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.soak", description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    chance, done, jobs = random.Random(options.seed), Counter[str](), list[str]()
    with tempfile.TemporaryDirectory() as data, running_deployment(Path(data) / "data") as deployment:
        (undisturbed,) = deployment.outcome(deployment.submit(1))["hashes"]
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
        time.sleep(5)  # the last requests' connections
        leaked = [job for job in jobs if deployment.service.engines(job)]
        fds = _open_handles(deployment)
    same = outcome["hashes"] == {undisturbed}
    print(
        f"{deployment.faults} faults, {outcome['jobs']} jobs, {outcome['lost']} lost, {outcome['doubled']} doubled, "
        f"{len(leaked)} engines left, {fds} handles open in two replicas, the same checkpoint: {same}"
    )
    return 0 if same and not (outcome["lost"] or outcome["doubled"] or leaked) else 1


if __name__ == "__main__":
    sys.exit(main())
