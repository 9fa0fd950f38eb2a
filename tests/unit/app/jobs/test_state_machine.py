"""A job under every order of claims, beats, ends, cancels, retries and lost leases, against a model of a few lines."""

import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from sqlalchemy import update
from sqlalchemy.orm import Session, sessionmaker

from app.db.clock import db_now
from app.db.models import JobRow
from app.jobs import repository
from app.jobs.repository import Claim, LeaseLostError
from app.jobs.states import FINAL, State

Sessions = sessionmaker[Session]
ERROR = {"code": "engine_died", "detail": "killed", "stage": "score"}
MAX_ATTEMPTS = 2


def new_job(sessions: Sessions) -> str:
    job_id = uuid.uuid4().hex
    with sessions.begin() as session:
        row = JobRow(id=job_id, state=State.QUEUED, spec={"model": {"repo": "a/b"}}, model="a/b", labels={})
        repository.insert(session, row)
    return job_id


def row_of(sessions: Sessions, job_id: str) -> JobRow:
    with sessions() as session:
        row = repository.get(session, job_id)
    assert row is not None
    return row


class JobMachine(RuleBasedStateMachine):
    """One job, its workers (those that lost it go on trying), and what the row must say."""

    sessions: Sessions

    def __init__(self) -> None:
        super().__init__()
        self.job = new_job(self.sessions)
        self.state = State.QUEUED
        self.cancel_asked = False
        self.failures = 0
        self.attempts = 0
        self.holder: Claim | None = None
        self.former: list[Claim] = []
        self.version = 0

    def write(self, call: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        with self.sessions.begin() as session:
            return call(session, self.job, *arguments, **named)

    def drop(self, state: State) -> None:
        assert self.holder is not None
        self.former.append(self.holder)
        self.holder, self.state = None, state

    @rule()
    def claim(self) -> None:
        taken = self.write(repository.claim, owner="w", lease_seconds=60)
        assert (taken is not None) == (self.state is State.QUEUED)
        if taken is not None:
            self.attempts += 1
            assert taken.attempt == self.attempts
            self.holder, self.state = taken, State.RUNNING

    @precondition(lambda self: self.holder is not None)
    @rule(finished=st.booleans())
    def advance(self, finished: bool) -> None:
        assert self.holder is not None
        self.write(
            repository.advance, self.holder.token, stage="score", progress=0.5, events=[], stage_finished=finished
        )
        assert self.write(repository.beat, self.holder.token, lease_seconds=60) == self.cancel_asked
        if finished:
            self.failures = 0

    @precondition(lambda self: self.holder is not None)
    @rule(end=st.sampled_from(["succeed", "fail", "cancelled", "release", "attempt_failed"]))
    def end(self, end: str) -> None:
        assert self.holder is not None
        token = self.holder.token
        match end:
            case "succeed":
                self.write(repository.succeed, token, verdict="pass", gates=[], result={})
                self.drop(State.SUCCEEDED)
            case "fail":
                self.write(repository.fail, token, error=ERROR)
                self.drop(State.FAILED)
            case "cancelled":
                self.write(repository.cancelled, token)
                self.drop(State.CANCELLED)
            case "release":
                self.write(repository.release, token, reason="the worker is stopping")
                self.drop(State.QUEUED)
            case "attempt_failed":
                again = self.write(repository.attempt_failed, token, error=ERROR, max_attempts=MAX_ATTEMPTS)
                self.failures += 1
                assert again == (self.failures < MAX_ATTEMPTS)
                self.drop(State.QUEUED if again else State.FAILED)

    @precondition(lambda self: self.holder is not None)
    @rule()
    def lease_runs_out(self) -> None:
        with self.sessions.begin() as session:
            session.execute(update(JobRow).where(JobRow.id == self.job).values(lease_expires_at=db_now(-1)))
        with self.sessions.begin() as session:
            assert self.job in repository.expire_leases(session, max_attempts=MAX_ATTEMPTS)
        self.failures += 1
        if self.cancel_asked:
            self.drop(State.CANCELLED)
        else:
            self.drop(State.FAILED if self.failures >= MAX_ATTEMPTS else State.QUEUED)

    @precondition(lambda self: self.former)
    @rule(write=st.sampled_from(["beat", "succeed", "fail", "cancelled", "release", "attempt_failed"]))
    def one_that_lost_it_writes(self, write: str) -> None:
        arguments: dict[str, dict[str, Any]] = {
            "beat": {"lease_seconds": 60},
            "succeed": {"verdict": "pass", "gates": [], "result": {}},
            "fail": {"error": ERROR},
            "cancelled": {},
            "release": {"reason": "the worker is stopping"},
            "attempt_failed": {"error": ERROR, "max_attempts": MAX_ATTEMPTS},
        }
        for claim in self.former:
            with pytest.raises(LeaseLostError):
                self.write(getattr(repository, write), claim.token, **arguments[write])

    @rule()
    def cancel(self) -> None:
        assert self.write(repository.request_cancel) == (self.state not in FINAL)
        if self.state is State.QUEUED:
            self.state, self.cancel_asked = State.CANCELLED, True
        elif self.state is State.RUNNING:
            self.cancel_asked = True

    @rule()
    def retry(self) -> None:
        possible = self.state in {State.FAILED, State.CANCELLED}
        assert self.write(repository.retry) == possible
        if possible:
            self.state, self.cancel_asked, self.failures = State.QUEUED, False, 0

    @invariant()
    def the_row_says_what_the_model_does(self) -> None:
        row = row_of(self.sessions, self.job)
        assert (row.state, row.attempt, row.failures) == (self.state, self.attempts, self.failures)
        assert (row.lease_owner is not None) == (self.state is State.RUNNING) == (row.lease_expires_at is not None)
        assert (row.finished_at is not None) == (self.state in FINAL)
        assert (row.error is not None) == (self.state is State.FAILED)
        assert row.version >= self.version
        self.version = row.version


def test_a_job_does_what_the_model_does_whatever_happens_in_whatever_order(sessions: Sessions) -> None:
    class Machine(JobMachine):
        pass

    Machine.sessions = sessions
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=25, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )


RACES = 250  # of each kind on each database: 1,000


def race(sessions: Sessions, first: Callable[[Session], Any], second: Callable[[Session], Any]) -> list[Any]:
    """What both gave, each in a transaction of its own begun at the same moment; LeaseLostError as it is."""
    gate = Barrier(2)

    def run(change: Callable[[Session], Any]) -> Any:
        gate.wait()
        try:
            with sessions.begin() as session:
                return change(session)
        except LeaseLostError as lost:
            return lost

    return list(_PAIR.map(run, (first, second)))


_PAIR = ThreadPoolExecutor(2)


def test_of_a_cancel_and_a_start_at_once_the_job_is_cancelled_or_its_worker_is_told(sessions: Sessions) -> None:
    started = 0
    for _ in range(RACES):
        job = new_job(sessions)
        accepted, claim = race(
            sessions,
            lambda session, job=job: repository.request_cancel(session, job),  # type: ignore[misc]
            lambda session, job=job: repository.claim(session, job, owner="w", lease_seconds=60),  # type: ignore[misc]
        )
        assert accepted is True
        row = row_of(sessions, job)
        if claim is None:
            assert (row.state, row.attempt) == (State.CANCELLED, 0)
        else:
            started += 1
            assert (row.state, row.cancel_requested) == (State.RUNNING, True)
            with sessions.begin() as session:
                assert repository.beat(session, job, claim.token, lease_seconds=60) is True


def test_of_a_cancel_and_a_finish_at_once_exactly_one_decides(sessions: Sessions) -> None:
    for _ in range(RACES):
        job = new_job(sessions)
        with sessions.begin() as session:
            claim = repository.claim(session, job, owner="w", lease_seconds=60)
        assert claim is not None
        accepted, finish = race(
            sessions,
            lambda session, job=job: repository.request_cancel(session, job),  # type: ignore[misc]
            lambda session, job=job, token=claim.token: repository.succeed(  # type: ignore[misc]
                session, job, token, verdict="pass", gates=[], result={}
            ),
        )
        assert finish is None, "the worker holds the lease: a cancel asks, it does not take the job away"
        row = row_of(sessions, job)
        assert row.state == State.SUCCEEDED
        assert row.cancel_requested == accepted, "whoever came second saw the first"
        with sessions.begin() as session:
            assert repository.request_cancel(session, job) is False
