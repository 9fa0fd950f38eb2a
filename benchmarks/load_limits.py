"""More and more of one kind of load until something breaks: which limit the service meets first, and how.

`python -m benchmarks.load --until-it-breaks`. Each kind of load goes up in steps, the others stay away, and it ends at
the first step with an error or a missed limit of `benchmarks.load`, or with the last step.
"""

import asyncio
import resource
import time
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import httpx
import psutil
from sqlalchemy import insert
from sqlalchemy.orm import Session, sessionmaker

from app.db.models import JobRow
from app.jobs import queue, repository
from app.jobs.states import State
from benchmarks.load import (
    CLAIM_SECONDS,
    JOB,
    MEMORY_BYTES,
    POLL_P99_SECONDS,
    SETTLE_SECONDS,
    SUBMIT_RATIO,
    p99,
    request,
)

WAITING = (700, 1_400, 2_800, 5_600, 11_200)
"""Clients that wait, five with a long-poll to two with a stream of events."""
CLIENTS = (8, 64, 256, 1_024, 4_096)
"""Clients that poll as fast as they are answered."""
SUBMITTERS = (1, 4, 16, 64, 256)
QUEUED = (10_000, 50_000, 200_000, 500_000)


@dataclass(frozen=True)
class Served:
    """The service under load."""

    server: psutil.Process
    port: int
    sessions: sessionmaker[Session]
    jobs: list[str]
    seconds: float
    """Of each step."""
    submit_p99: float
    """With an empty queue."""


def until_it_breaks(served: Served) -> None:
    """Raise each kind of load in steps, and print what each step came to and what broke first."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # this process must not be what breaks
    print(f"open files allowed to the service: {served.server.rlimit(psutil.RLIMIT_NOFILE)[0]:,}")
    _steps("clients that wait", WAITING, lambda number: asyncio.run(_waiting(served, number)))
    _steps("clients that poll", CLIENTS, lambda number: asyncio.run(_polling(served, number)))
    _steps("clients that submit", SUBMITTERS, lambda number: asyncio.run(_submitting(served, number)))
    _steps("jobs in the queue", QUEUED, lambda number: _queued(served, number))
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def _steps(what: str, steps: Iterable[int], step: Callable[[int], tuple[str, str]]) -> None:
    """`step` returns its figures, and what broke or nothing."""
    for number in steps:
        figures, broke = step(number)
        print(f"  {number:>9,} {what}: {figures}{f'  BROKE: {broke}' if broke else ''}", flush=True)
        if broke:
            return
    print(f"  {what}: nothing broke")


async def _waiting(served: Served, number: int) -> tuple[str, str]:
    async def open_one(index: int) -> asyncio.StreamWriter:
        job = served.jobs[index % len(served.jobs)]
        stream = index % 7 >= 5
        path = f"/v1/jobs/{job}/events" if stream else f"/v1/jobs/{job}?wait=30"
        _, writer = await asyncio.open_connection("127.0.0.1", served.port)
        accept = "Accept: text/event-stream\r\n" if stream else ""
        writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{accept}\r\n".encode())
        return writer

    try:
        writers = [await asyncio.wait_for(open_one(index), 10) for index in range(number)]
    except (OSError, TimeoutError) as error:
        return "", f"a connection was not taken ({type(error).__name__})"
    await asyncio.sleep(SETTLE_SECONDS)
    took, failed = await _hammer(served, clients=1)
    memory = served.server.memory_info().rss
    for writer in writers:
        writer.close()
    await asyncio.sleep(2)
    figures = f"p99 of a poll {p99(took) * 1000:.0f} ms, {memory / 1e6:.0f} MB"
    return figures, _missed(
        (failed, f"{failed} polls failed"),
        (p99(took) > POLL_P99_SECONDS, f"a poll's p99 is over {POLL_P99_SECONDS * 1000:.0f} ms"),
        (memory > MEMORY_BYTES, f"memory is over {MEMORY_BYTES / 1e6:.0f} MB"),
    )


async def _polling(served: Served, number: int) -> tuple[str, str]:
    took, failed = await _hammer(served, clients=number)
    rate = len(took) / served.seconds
    figures = f"{rate:.0f} polls per second, p99 {p99(took) * 1000:.0f} ms"
    # With n clients at a constant rate each waits n times as long: late is what takes more than its turn.
    return figures, _missed(
        (failed, f"{failed} polls failed"), (p99(took) > 10, "a poll took over 10 s"), (rate < 1, "hardly any answer")
    )


async def _hammer(served: Served, *, clients: int) -> tuple[list[float], int]:
    """Seconds of the polls that were answered, and how many were not."""
    end = time.monotonic() + served.seconds
    took: list[float] = []
    failed = 0

    async def client() -> None:
        nonlocal failed
        try:
            reader, writer = await asyncio.wait_for(asyncio.open_connection("127.0.0.1", served.port), 10)
            while (began := time.monotonic()) < end:
                status, _ = await asyncio.wait_for(request(reader, writer, f"/v1/jobs/{served.jobs[0]}", {}), 30)
                took.append(time.monotonic() - began)
                failed += status != 200
            writer.close()
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            failed += 1

    await asyncio.gather(*(client() for _ in range(clients)))
    return (took if len(took) > 1 else [30.0, 30.0]), failed


async def _submitting(served: Served, number: int) -> tuple[str, str]:
    end = time.monotonic() + served.seconds
    took: list[float] = []
    refused: dict[str, int] = {}
    limits = httpx.Limits(max_connections=number)
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{served.port}", timeout=60, limits=limits) as http:

        async def client() -> None:
            while (began := time.monotonic()) < end:
                try:
                    answer = await http.post("/v1/jobs", json=JOB)
                except httpx.HTTPError as error:
                    refused[type(error).__name__] = refused.get(type(error).__name__, 0) + 1
                    return
                took.append(time.monotonic() - began)
                if answer.status_code != 202:
                    again = "" if "retry-after" in answer.headers else ", without Retry-After"
                    what = f"{answer.status_code}{again}"
                    refused[what] = refused.get(what, 0) + 1

        await asyncio.gather(*(client() for _ in range(number)))
    took = took if len(took) > 1 else [60.0, 60.0]
    figures = f"{len(took) / served.seconds:.0f} per second, p99 {p99(took) * 1000:.0f} ms"
    return figures, _missed((refused, f"answers {refused}"), (p99(took) > 30, "a submit took over 30 s"))


def _queued(served: Served, number: int) -> tuple[str, str]:
    from app.db.clock import db_now

    with served.sessions.begin() as session:
        row = session.get(JobRow, served.jobs[0])
        assert row is not None
        there = queue.state_counts(session).get(State.QUEUED, 0)
        values = {"state": State.QUEUED, "spec": row.spec, "labels": {}, "model": row.model, "event_count": 0}
        rows = [values | {"id": uuid.uuid4().hex} for _ in range(max(0, number - there))]
        if rows:
            session.execute(insert(JobRow).values(published_at=db_now(), published_count=7), rows)
    took, made = [], []
    with httpx.Client(base_url=f"http://127.0.0.1:{served.port}", timeout=60) as http:
        for _ in range(100):
            began = time.monotonic()
            answer = http.post("/v1/jobs", json=JOB)
            took.append(time.monotonic() - began)
            if answer.status_code != 202:
                return "", f"a submit was answered {answer.status_code}"
            made.append(answer.json()["id"])
        began = time.monotonic()
        listed = http.get("/v1/jobs", params={"state": "queued"}).status_code
        listing = time.monotonic() - began
    began = time.monotonic()
    for job_id in made:
        with served.sessions.begin() as session:
            assert repository.claim(session, job_id, owner="bench", lease_seconds=600) is not None
    claim = (time.monotonic() - began) / len(made)
    ratio = p99(took) / served.submit_p99
    figures = (
        f"submit p99 {ratio:.2f} x that of an empty queue, claim {claim * 1000:.1f} ms, list {listing * 1000:.0f} ms"
    )
    return figures, _missed(
        (listed != 200, f"a list was answered {listed}"),
        (ratio > SUBMIT_RATIO, f"a submit's p99 is over {SUBMIT_RATIO} x"),
        (claim > CLAIM_SECONDS, f"a claim takes over {CLAIM_SECONDS * 1000:.0f} ms"),
    )


def _missed(*found: tuple[object, str]) -> str:
    return next((what for bad, what in found if bad), "")
