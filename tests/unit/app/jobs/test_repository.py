"""The SQL about jobs keeps its promises on both databases."""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import update
from sqlalchemy.orm import Session, sessionmaker

from app.db.clock import db_now
from app.db.models import JobRow
from app.jobs import event_log, marks, queue, repository
from app.jobs.event_log import Event
from app.jobs.repository import LeaseLostError
from app.jobs.states import State

Sessions = sessionmaker[Session]


def add_job(sessions: Sessions, job_id: str = "j1", *, need: int | None = None, **labels: str) -> None:
    with sessions.begin() as session:
        row = JobRow(id=job_id, state=State.QUEUED, spec={"model": {"repo": "a/b"}}, model="a/b", labels=labels)
        row.required_memory_bytes = need
        repository.insert(session, row)


def claim(sessions: Sessions, job_id: str = "j1", lease_seconds: float = 60) -> repository.Claim:
    with sessions.begin() as session:
        taken = repository.claim(session, job_id, owner="w", lease_seconds=lease_seconds)
    assert taken is not None
    return taken


def state_of(sessions: Sessions, job_id: str = "j1") -> str:
    with sessions() as session:
        row = repository.get(session, job_id)
        assert row is not None
        return row.state


def test_of_fifty_workers_that_claim_one_job_at_the_same_time_exactly_one_gets_it(sessions: Sessions) -> None:
    add_job(sessions)
    barrier = threading.Barrier(50)

    def try_to_claim(worker: int) -> bool:
        barrier.wait()
        with sessions.begin() as session:
            return repository.claim(session, "j1", owner=f"w{worker}", lease_seconds=60) is not None

    with ThreadPoolExecutor(50) as pool:
        assert sum(pool.map(try_to_claim, range(50))) == 1


def test_of_workers_that_claim_at_the_same_time_none_gets_a_job_that_is_too_large_for_it(sessions: Sessions) -> None:
    needs = [None, 1, 24, 25, 80, 81]
    for need in needs:
        add_job(sessions, f"of {need}", need=need)
    barrier = threading.Barrier(24)

    def take_all(worker: int) -> list[tuple[int | None, int | None]]:
        memory = (24, 80, 8, None)[worker % 4] if worker < 20 else 24  # one that takes everything comes last
        barrier.wait()
        taken = []
        for need in needs if memory is not None else ():
            with sessions.begin() as session:
                claim = repository.claim(
                    session, f"of {need}", owner=f"w{worker}", lease_seconds=60, memory_bytes=memory
                )
            taken += [(need, memory)] if claim else []
        return taken

    with ThreadPoolExecutor(24) as pool:
        taken = [pair for pairs in pool.map(take_all, range(24)) for pair in pairs]
    assert sorted(need or 0 for need, _ in taken) == [0, 1, 24, 25, 80], "each once"
    assert all(need is None or (memory is not None and need <= memory) for need, memory in taken)
    assert state_of(sessions, "of 81") == State.QUEUED
    with sessions() as session:
        assert queue.queued_needs(session) == {81: 1}
    claim(sessions, "of 81")


@pytest.mark.parametrize("write", ["beat", "advance", "succeed", "fail", "release", "attempt_failed", "cancelled"])
def test_a_worker_whose_lease_ran_out_can_write_nothing_more(sessions: Sessions, write: str) -> None:
    add_job(sessions)
    old = claim(sessions, lease_seconds=-1)
    with sessions.begin() as session:
        assert repository.expire_leases(session, max_attempts=3) == ["j1"]
    claim(sessions)
    arguments: dict[str, dict[str, Any]] = {
        "beat": {"lease_seconds": 5},
        "advance": {"stage": "fetch", "progress": 0.5, "events": [Event("log", {})]},
        "succeed": {"verdict": "pass", "gates": [], "result": {}},
        "fail": {"error": {"code": "x", "detail": "y", "stage": "fetch"}},
        "release": {"reason": "the worker is stopping"},
        "attempt_failed": {"error": {"code": "x", "detail": "y", "stage": "fetch"}, "max_attempts": 3},
        "cancelled": {},
    }
    with pytest.raises(LeaseLostError), sessions.begin() as session:
        getattr(repository, write)(session, "j1", old.token, **arguments[write])
    assert state_of(sessions) == State.RUNNING


def test_a_lease_that_is_renewed_is_not_taken(sessions: Sessions) -> None:
    add_job(sessions)
    taken = claim(sessions, lease_seconds=-1)
    with sessions.begin() as session:
        repository.beat(session, "j1", taken.token, lease_seconds=60)
    with sessions.begin() as session:
        assert repository.expire_leases(session, max_attempts=3) == []


def test_a_job_whose_worker_vanishes_each_time_is_failed_after_its_attempts(sessions: Sessions) -> None:
    add_job(sessions)
    for expected in (State.QUEUED, State.QUEUED, State.FAILED):
        claim(sessions, lease_seconds=-1)
        with sessions.begin() as session:
            repository.expire_leases(session, max_attempts=3)
        assert state_of(sessions) == expected
    with sessions() as session:
        row = repository.get(session, "j1")
        assert row is not None
        assert row.error is not None
        assert row.error["code"] == "worker_lost"


def test_a_finished_stage_gives_the_job_its_attempts_back(sessions: Sessions) -> None:
    add_job(sessions)
    error = {"code": "engine_died", "detail": "killed", "stage": "score"}
    for _ in range(5):
        taken = claim(sessions)
        with sessions.begin() as session:
            repository.advance(session, "j1", taken.token, stage="score", progress=0.1, events=[], stage_finished=True)
        with sessions.begin() as session:
            assert repository.attempt_failed(session, "j1", taken.token, error=error, max_attempts=2)


def test_a_released_job_spends_no_attempt(sessions: Sessions) -> None:
    add_job(sessions)
    for _ in range(5):
        taken = claim(sessions)
        with sessions.begin() as session:
            repository.release(session, "j1", taken.token, reason="the worker is stopping")
    with sessions() as session:
        row = repository.get(session, "j1")
        assert row is not None
        assert (row.state, row.failures) == (State.QUEUED, 0)


def test_cancel_ends_a_queued_job_at_once_and_asks_the_worker_of_a_running_one(sessions: Sessions) -> None:
    add_job(sessions, "queued")
    add_job(sessions, "running")
    taken = claim(sessions, "running")
    with sessions.begin() as session:
        assert repository.request_cancel(session, "queued")
        assert repository.request_cancel(session, "running")
        assert repository.request_cancel(session, "running"), "idempotent"
    assert state_of(sessions, "queued") == State.CANCELLED
    with sessions.begin() as session:
        assert repository.beat(session, "running", taken.token, lease_seconds=5) is True
    with sessions.begin() as session:
        repository.cancelled(session, "running", taken.token)
    with sessions.begin() as session:
        assert not repository.request_cancel(session, "running"), "it is final"


def test_a_job_to_be_cancelled_whose_worker_died_ends_cancelled(sessions: Sessions) -> None:
    add_job(sessions)
    claim(sessions, lease_seconds=-1)
    with sessions.begin() as session:
        repository.request_cancel(session, "j1")
    with sessions.begin() as session:
        repository.expire_leases(session, max_attempts=3)
    assert state_of(sessions) == State.CANCELLED


def test_only_failed_and_cancelled_jobs_can_be_retried(sessions: Sessions) -> None:
    add_job(sessions)
    with sessions.begin() as session:
        assert not repository.retry(session, "j1")
    taken = claim(sessions)
    with sessions.begin() as session:
        assert not repository.retry(session, "j1")
        repository.fail(session, "j1", taken.token, error={"code": "x", "detail": "y", "stage": "fetch"})
    with sessions.begin() as session:
        assert repository.retry(session, "j1")
    with sessions() as session:
        row = repository.get(session, "j1")
        assert row is not None
        assert (row.state, row.error, row.finished_at) == (State.QUEUED, None, None)


def test_a_queued_job_is_announced_once_and_again_when_its_message_may_be_lost(sessions: Sessions) -> None:
    add_job(sessions)

    def announced(seconds_later: float) -> list[str]:
        with sessions.begin() as session:
            session.execute(update(JobRow).values(published_at=db_now(-seconds_later)))
            return list(queue.unannounced(session, republish_seconds=60))

    with sessions.begin() as session:
        assert list(queue.unannounced(session, republish_seconds=60)) == ["j1"]
        assert queue.unannounced(session, republish_seconds=60) == {}
    assert announced(30) == []
    assert announced(90) == ["j1"]
    assert announced(90) == [], "the wait doubles"
    assert announced(150) == ["j1"]


def test_a_job_is_announced_with_the_memory_that_it_needs(sessions: Sessions) -> None:
    add_job(sessions, "small", need=5)
    add_job(sessions, "unknown")
    with sessions.begin() as session:
        assert queue.unannounced(session, republish_seconds=60) == {"small": 5, "unknown": None}


def test_events_have_numbers_without_gaps_whoever_writes_them(sessions: Sessions) -> None:
    add_job(sessions)

    def write(worker: int) -> None:
        for n in range(5):
            with sessions.begin() as session:
                event_log.append_events(session, "j1", [Event("log", {"worker": worker, "n": n}), Event("log", {})])

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(8)))
    with sessions() as session:
        assert [event.seq for event in event_log.events_after(session, "j1", 0, limit=1000)] == list(range(1, 82))


def test_every_change_that_a_client_can_see_has_a_new_version(sessions: Sessions) -> None:
    add_job(sessions)
    versions = []

    def note() -> None:
        with sessions() as session:
            versions.append(marks.read_all(session, ["j1"])["j1"].version)

    note()
    taken = claim(sessions)
    note()
    with sessions.begin() as session:
        repository.advance(session, "j1", taken.token, stage="fetch", progress=0.1, events=[])
    note()
    with sessions.begin() as session:
        repository.request_cancel(session, "j1")
    note()
    with sessions.begin() as session:
        repository.cancelled(session, "j1", taken.token)
    note()
    assert len(set(versions)) == 5
    with sessions.begin() as session:
        assert marks.read_all(session, ["nobody"]) == {}


def test_pages_are_stable_while_jobs_are_added(sessions: Sessions) -> None:
    for n in range(5):
        add_job(sessions, f"old{n}", team="a")
    with sessions() as session:
        first = repository.page(session, limit=3)
    add_job(sessions, "new", team="b")
    last = first[-1]
    with sessions() as session:
        rest = repository.page(session, before=(last.created_at, last.id), limit=10)
        labelled = repository.page(session, labels={"team": "b"}, limit=10)
    assert {job.id for job in [*first, *rest]} == {f"old{n}" for n in range(5)}
    assert [job.id for job in labelled] == ["new"]
