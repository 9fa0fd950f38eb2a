"""The API under many clients: polling against a bare route, waiting clients, a long queue. SQLite, one API process.

    python -m benchmarks.load [--seconds 5] [--until-it-breaks]

Limits: `GET /v1/jobs/{id}` with an ETag at least 0.5 x the requests per second of an empty route that does one indexed
read in the same server; with 500 long-polls and 200 event streams open, a poll's p99 under 250 ms and the process under
300 MB; with 10,000 jobs queued, a submit's p99 at most 1.5 x that of an empty queue, and a claim under 20 ms. Exits 1
where one is missed. With --until-it-breaks see `benchmarks.load_limits`.
"""

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
from sqlalchemy import insert
from sqlalchemy.orm import Session, sessionmaker

from app.cli.serve import free_port
from app.db.models import JobRow
from app.db.session import connect, session_factory
from app.jobs import repository
from app.jobs.states import State

POLL_RATIO = 0.5
POLL_P99_SECONDS = 0.250
MEMORY_BYTES = 300_000_000
SUBMIT_RATIO = 1.5
CLAIM_SECONDS = 0.020
SETTLE_SECONDS = 10  # of the 30 that a long-poll lasts
LONG_POLLS, STREAMS, QUEUED = 500, 200, 10_000
JOB: dict[str, Any] = {"model": {"repo": "demo/stories-24l"}, "target": {"sparsity": 0.25}}

FLOOR = """
import sys
import uvicorn
from fastapi import FastAPI
from sqlalchemy import select
from app.db.models import JobRow
from app.db.session import connect, session_factory

app = FastAPI()
sessions = session_factory(connect(sys.argv[2]), read_only=True)

@app.get("/{job_id}")
def read(job_id: str) -> str:
    with sessions() as session:
        return session.scalar(select(JobRow.state).where(JobRow.id == job_id))

uvicorn.run(app, port=int(sys.argv[1]), log_level="warning", access_log=False)
"""


@contextmanager
def process(arguments: list[str], port: int, path: str, **more: str) -> Iterator[psutil.Process]:
    """A server as a process, once it answers."""
    started = subprocess.Popen([sys.executable, *arguments], env=os.environ | more, stderr=subprocess.DEVNULL)
    try:
        while True:
            try:
                httpx.get(f"http://127.0.0.1:{port}{path}", timeout=5)
                break
            except httpx.TransportError:
                time.sleep(0.05)
        yield psutil.Process(started.pid)
    finally:
        started.terminate()
        started.wait(30)


async def request(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: str, headers: dict[str, str]
) -> tuple[int, bytes]:
    """One request over a kept connection; status and body."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{lines}\r\n".encode())
    head = await reader.readuntil(b"\r\n\r\n")
    length = next((int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), 0)
    return int(head[9:12]), await reader.readexactly(length)


async def hammer(port: int, path: str, headers: dict[str, str], *, seconds: float, clients: int = 8) -> list[float]:
    """Seconds that each request took, of clients that ask as fast as they are answered."""
    end = time.monotonic() + seconds

    async def client() -> list[float]:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        took = []
        while (began := time.monotonic()) < end:
            status, _ = await request(reader, writer, path, headers)
            assert status in {200, 304}, status
            took.append(time.monotonic() - began)
        writer.close()
        return took

    return [one for taken in await asyncio.gather(*(client() for _ in range(clients))) for one in taken]


def p99(seconds: list[float]) -> float:
    return statistics.quantiles(seconds, n=100)[98]


class Verdict:
    """Prints each figure beside its limit, and remembers whether one was missed."""

    missed = False

    def __call__(self, name: str, value: float, limit: float, *, at_least: bool = False) -> None:
        good = value >= limit if at_least else value <= limit
        self.missed |= not good
        print(
            f"{name:<62}{value:>9.3f}  {'>=' if at_least else '<='} {limit:g}{'' if good else '  MISSED'}", flush=True
        )


def polling(verdict: Verdict, port: int, floor_port: int, job: str, seconds: float) -> None:
    etag = httpx.get(f"http://127.0.0.1:{port}/v1/jobs/{job}").headers["etag"]
    ratios = []
    for _ in range(3):  # by turns, so that what else the machine does meets both
        floor = asyncio.run(hammer(floor_port, f"/{job}", {}, seconds=seconds))
        ours = asyncio.run(hammer(port, f"/v1/jobs/{job}", {"If-None-Match": etag}, seconds=seconds))
        ratios.append(len(ours) / len(floor))
        print(f"  {len(ours) / seconds:.0f} polls per second, bare route {len(floor) / seconds:.0f}")
    verdict("polls per second / those of a bare indexed read", statistics.median(ratios), POLL_RATIO, at_least=True)


async def _wait_for(port: int, path: str, headers: dict[str, str]) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{lines}\r\n".encode())
    await writer.drain()


def waiting(verdict: Verdict, server: psutil.Process, port: int, jobs: list[str], seconds: float) -> None:
    async def run() -> list[float]:
        for number in range(LONG_POLLS):
            await _wait_for(port, f"/v1/jobs/{jobs[number % len(jobs)]}?wait=30", {})
        for number in range(STREAMS):
            await _wait_for(port, f"/v1/jobs/{jobs[number % len(jobs)]}/events", {"Accept": "text/event-stream"})
        await asyncio.sleep(SETTLE_SECONDS)  # that so many come at once is another question
        return await hammer(port, f"/v1/jobs/{jobs[0]}", {}, seconds=seconds, clients=1)

    took = asyncio.run(run())
    verdict(f"p99 of a poll in seconds, {LONG_POLLS} long-polls and {STREAMS} streams", p99(took), POLL_P99_SECONDS)
    verdict("  memory of the API in MB", server.memory_info().rss / 1e6, MEMORY_BYTES / 1e6)


def submits(url: str, count: int) -> tuple[list[float], list[str]]:
    took, ids = [], []
    with httpx.Client(base_url=url, timeout=60) as http:
        for _ in range(count):
            began = time.monotonic()
            answer = http.post("/v1/jobs", json=JOB)
            took.append(time.monotonic() - began)
            assert answer.status_code == 202, answer.text
            ids.append(answer.json()["id"])
    return took, ids


def fill(sessions: sessionmaker[Session], like: str) -> None:
    """As many queued jobs as the limit is about, each announced already."""
    from app.db.clock import db_now

    with sessions.begin() as session:
        row = session.get(JobRow, like)
        assert row is not None
        values = {"state": State.QUEUED, "spec": row.spec, "labels": {}, "model": row.model, "event_count": 0}
        rows = [values | {"id": uuid.uuid4().hex} for _ in range(QUEUED)]
        session.execute(insert(JobRow).values(published_at=db_now(), published_count=7), rows)


def long_queue(verdict: Verdict, url: str, sessions: sessionmaker[Session], empty: list[float], ids: list[str]) -> None:
    fill(sessions, ids[0])
    full, more = submits(url, len(empty))
    print(
        f"  submit p99 {p99(empty) * 1000:.0f} ms with an empty queue, {p99(full) * 1000:.0f} ms with {QUEUED:,} jobs"
    )
    verdict(f"p99 of a submit with {QUEUED:,} queued / with an empty queue", p99(full) / p99(empty), SUBMIT_RATIO)

    took = []
    for job_id in more:
        began = time.monotonic()
        with sessions.begin() as session:
            assert repository.claim(session, job_id, owner="bench", lease_seconds=600) is not None
        took.append(time.monotonic() - began)
    verdict("median claim in seconds", statistics.median(took), CLAIM_SECONDS)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each round of polling")
    parser.add_argument("--until-it-breaks", action="store_true", help="more and more load, instead of these figures")
    options = parser.parse_args()
    verdict = Verdict()
    with tempfile.TemporaryDirectory() as directory:
        data = {"STREAMLINE_DATA_DIR": directory, "STREAMLINE_RECONCILE_SECONDS": "600"}
        port, floor_port = free_port("127.0.0.1"), free_port("127.0.0.1")
        database = f"sqlite:///{Path(directory) / 'streamline.db'}"
        subprocess.run(
            [sys.executable, "-m", "app.cli", "migrate"], env=os.environ | data, check=True, stdout=sys.stderr
        )
        engine = connect(database)
        sessions = session_factory(engine)
        with process(["-m", "app.cli", "api", "--port", str(port)], port, "/readyz", **data) as server:
            url = f"http://127.0.0.1:{port}"
            empty, ids = submits(url, 200)
            if options.until_it_breaks:
                from benchmarks.load_limits import Served, until_it_breaks

                until_it_breaks(Served(server, port, sessions, ids, options.seconds, p99(empty)))
                return 0
            with process(["-c", FLOOR, str(floor_port), database], floor_port, "/x"):
                polling(verdict, port, floor_port, ids[0], options.seconds)
            waiting(verdict, server, port, ids, options.seconds)
            long_queue(verdict, url, sessions, empty, ids)
            print(json.dumps({"threads": server.num_threads(), "handles": server.num_fds()}))
        engine.dispose()
    return 1 if verdict.missed else 0


if __name__ == "__main__":
    sys.exit(main())
