"""Queues by GPU memory: a job waits in that of the smallest card that holds it, a worker takes from all that it can.

So a job that needs a large card waits for one without holding up those behind it that do not. What decides is the row:
a claim is refused where the job needs more than the worker has (`app.jobs.repository.claim`); the queues only spare
workers the messages of jobs that are not for them.
"""

from typing import Final

from app.core.device_memory import CARDS

ANY: Final = "streamline"
"""The queue of jobs whose need is not known (those of older releases), and of all jobs with the embedded broker."""

BEYOND: Final = "beyond"
"""The class of jobs that need more than the largest card has."""


def memory_class(required_bytes: int | None) -> str:
    """Return the name of the class that a job of this need is of: `24g`, ..., `beyond`; `any` where it is not known."""
    if required_bytes is None:
        return "any"
    return next((f"{card}g" for card, has in CARDS.items() if required_bytes <= has), BEYOND)


def worker_class(memory_bytes: int | None) -> str:
    """Return the name of the largest class whose jobs a worker takes; `any` for one that takes every job."""
    if memory_bytes is None:
        return "any"
    if memory_bytes > max(CARDS.values()):
        return BEYOND
    return f"{max((card for card, has in CARDS.items() if has <= memory_bytes), default=min(CARDS))}g"


def queue_for(required_bytes: int | None) -> str:
    """Return the queue in which a job of this need waits."""
    return ANY if required_bytes is None else f"{ANY}.{memory_class(required_bytes)}"


def queues_of(memory_bytes: int | None) -> tuple[str, ...]:
    """Return the queues that a worker takes from, in the order in which it looks.

    The largest jobs come first: what is too large for other workers has only this one. A worker whose memory is not
    stated (None) takes everything. `beyond` is for those above all cards, whose claims tell which of them fit.
    """
    fitting = [card for card, has in reversed(CARDS.items()) if memory_bytes is None or has <= memory_bytes]
    above = memory_bytes is None or memory_bytes > max(CARDS.values())
    return (*([f"{ANY}.{BEYOND}"] if above else []), *(f"{ANY}.{card}g" for card in fitting), ANY)
