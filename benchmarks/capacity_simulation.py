"""Jobs, queues and workers as the service has them, in simulated time: one event after the other.

The rules are the service's own: `queue_for` says where a job waits and `queues_of` where a worker looks, and in which
order. A job that comes while workers wait is taken by the one that has waited longest, as Redis does it.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Generic, Protocol, TypeVar

from app.dispatch.memory_classes import queue_for, queues_of


class HasMemory(Protocol):
    """What a worker runs on."""

    @property
    def memory_bytes(self) -> int:
        """That it takes jobs for."""


J = TypeVar("J")
C = TypeVar("C", bound=HasMemory)


@dataclass(frozen=True)
class Waiting(Generic[J]):
    """A job that is to come: when, in seconds, with the memory that it needs, in bytes."""

    at: float
    need: int
    job: J


@dataclass(frozen=True)
class Run(Generic[J]):
    """What became of a job: which worker had it from when to when."""

    waiting: Waiting[J]
    worker: int
    start: float
    end: float

    @property
    def waited(self) -> float:
        """Seconds in the queue."""
        return self.start - self.waiting.at


@dataclass(frozen=True)
class Outcome(Generic[J]):
    """Every job once: those that ran, in the order in which they began, and those that no worker can hold."""

    runs: list[Run[J]]
    never: list[Waiting[J]] = field(default_factory=list)


def simulate(
    coming: Sequence[Waiting[J]],
    cards: Sequence[C],
    seconds: Callable[[J, C], float],
    *,
    smallest_idle: bool = False,
) -> Outcome[J]:
    """Run all jobs to their end.

    Args:
        coming: in the order of their time.
        cards: one worker each.
        seconds: how long a job keeps a card.
        smallest_idle: of idle workers the one with the least memory takes a job; the service's queues cannot do that.
    """
    looks = [queues_of(card.memory_bytes) for card in cards]
    queues: dict[str, deque[Waiting[J]]] = {name: deque() for names in looks for name in names}
    idle: dict[int, None] = dict.fromkeys(range(len(cards)))  # in the order in which they began to wait
    order, ends = count(), list[tuple[float, int, int]]()
    runs, never = list[Run[J]](), list[Waiting[J]]()

    def begin(waiting: Waiting[J], worker: int, now: float) -> None:
        end = now + seconds(waiting.job, cards[worker])
        runs.append(Run(waiting, worker, now, end))
        heapq.heappush(ends, (end, next(order), worker))

    def free(worker: int, now: float) -> None:
        for name in looks[worker]:
            if queues[name]:
                begin(queues[name].popleft(), worker, now)
                return
        idle[worker] = None

    for waiting in coming:
        while ends and ends[0][0] <= waiting.at:
            now, _, worker = heapq.heappop(ends)
            free(worker, now)
        name = queue_for(waiting.need)
        if name not in queues:
            never.append(waiting)
            continue
        able = (worker for worker in idle if name in looks[worker])
        taker = (
            min(able, key=lambda worker: cards[worker].memory_bytes, default=None)
            if smallest_idle
            else next(able, None)
        )
        if taker is None:
            queues[name].append(waiting)
        else:
            del idle[taker]
            begin(waiting, taker, waiting.at)
    while ends:
        now, _, worker = heapq.heappop(ends)
        free(worker, now)
    return Outcome(runs, never)
