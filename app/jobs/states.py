"""The one transition table of a job's state. Nothing else decides which state may follow which."""

from enum import StrEnum


class State(StrEnum):
    """Where a job is in its life."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Trigger(StrEnum):
    """What moves a job."""

    CLAIM = "claim"
    """A worker takes it (compare-and-set on the row)."""
    RELEASE = "release"
    """A worker gives it back: it is stopping, or the attempt failed and another is allowed."""
    EXPIRE = "expire"
    """The reconciler takes it from a worker whose lease ran out."""
    SUCCEED = "succeed"
    FAIL = "fail"
    CANCEL = "cancel"
    RETRY = "retry"
    """A person or pipeline asks for another go; finished stages are kept."""


STAGES = ("fetch", "score", "select", "train", "assemble", "verify", "evaluate", "benchmark", "publish")

FINAL = frozenset({State.SUCCEEDED, State.FAILED, State.CANCELLED})

TRANSITIONS: dict[tuple[State, Trigger], State] = {
    (State.QUEUED, Trigger.CLAIM): State.RUNNING,
    (State.QUEUED, Trigger.CANCEL): State.CANCELLED,
    (State.RUNNING, Trigger.RELEASE): State.QUEUED,
    (State.RUNNING, Trigger.EXPIRE): State.QUEUED,
    (State.RUNNING, Trigger.SUCCEED): State.SUCCEEDED,
    (State.RUNNING, Trigger.FAIL): State.FAILED,
    (State.RUNNING, Trigger.CANCEL): State.CANCELLED,
    (State.FAILED, Trigger.RETRY): State.QUEUED,
    (State.CANCELLED, Trigger.RETRY): State.QUEUED,
}


def sources(trigger: Trigger) -> frozenset[State]:
    """The states that `trigger` may be pulled in: the WHERE clause of its UPDATE."""
    return frozenset(state for state, pulled in TRANSITIONS if pulled is trigger)


def target(trigger: Trigger) -> State:
    """The state that `trigger` leads to; the table gives each trigger exactly one."""
    (state,) = {after for (_, pulled), after in TRANSITIONS.items() if pulled is trigger}
    return state
