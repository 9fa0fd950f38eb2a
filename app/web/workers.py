"""The page of workers: who is there, by GPU memory, and what waits for whom."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Final

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import HTMLResponse

from app.api.deps import Parts, Reader
from app.core.device_memory import CARDS
from app.dispatch.memory_classes import BEYOND, memory_class, worker_class
from app.jobs import queue, workers
from app.jobs.waiting import too_large
from app.jobs.workers import KnownWorkers
from app.web.parts import part_of
from app.web.routing import PageRoute

router = APIRouter(include_in_schema=False, default_response_class=HTMLResponse, route_class=PageRoute)

_ANY: Final = "any"
_NAMES: Final[Mapping[str, str]] = {
    _ANY: "any",
    BEYOND: f"more than {max(CARDS)} GB",
    **{f"{card}g": f"{card} GB" for card in sorted(CARDS, reverse=True)},
}
"""What a class is called for people, in the order of the page: the largest first."""


@dataclass(frozen=True)
class MemoryClass:
    """Workers and waiting jobs of one class of GPU memory."""

    id: str
    name: str
    workers: int
    """That are there."""
    larger: int
    """Of the workers of larger classes that are there: they may take these jobs too."""
    of_any_size: int
    """Of the workers that are there and take every job; 0 in their own class."""
    seen: str
    """When the last of them was seen, to the minute; empty: none has been for a day."""
    waiting: int
    stuck: int
    """Of those that wait, how many need more than any worker has that is there."""

    @property
    def version(self) -> str:
        """Changes with what is shown."""
        return f"{self.workers} {self.larger} {self.of_any_size} {self.seen} {self.waiting} {self.stuck}"


@router.get("/workers")
def workers_page(
    request: Request,
    parts: Parts,
    _reader: Reader,
    part: Annotated[str, Query(max_length=16)] = "",
    if_none_match: Annotated[str | None, Header()] = None,
) -> Response:
    """The classes that have workers or waiting jobs; with `part=list` their list alone."""
    with parts.read_sessions() as session:
        found = classes(workers.known(session), queue.queued_needs(session))
    shown = {"classes": found, "there": sum(each.workers for each in found)}
    template = "worker_list.html" if part else "workers.html"
    return part_of(request, template, found, if_none_match=if_none_match if part else None, **shown)


def classes(known: Sequence[KnownWorkers], needs: Mapping[int | None, int]) -> list[MemoryClass]:
    """Return the classes of which there is a worker or a waiting job, the largest first.

    Args:
        known: workers by their memory.
        needs: how many jobs wait for a GPU of so many bytes (None: of any).
    """
    there = [group.memory_bytes for group in known if group.there]
    by_class: Counter[str] = Counter()
    for group in known:
        by_class[worker_class(group.memory_bytes)] += group.there
    return [
        MemoryClass(
            id=name,
            name=_NAMES[name],
            workers=by_class.get(name, 0),
            larger=sum(by_class.get(other, 0) for other in _larger(name)),
            of_any_size=0 if name == _ANY else by_class.get(_ANY, 0),
            seen=_last([group.seen_at for group in known if worker_class(group.memory_bytes) == name]),
            waiting=sum(count for need, count in needs.items() if memory_class(need) == name),
            stuck=sum(
                count
                for need, count in needs.items()
                if memory_class(need) == name and (not there or too_large(need, there))
            ),
        )
        for name in _NAMES
        if any(worker_class(group.memory_bytes) == name for group in known)
        or any(memory_class(need) == name for need in needs)
    ]


def _larger(name: str) -> list[str]:
    """The classes whose workers take the jobs of this one too; those of jobs for any worker are all others."""
    sizes = [other for other in _NAMES if other != _ANY]
    return sizes if name == _ANY else sizes[: sizes.index(name)]


def _last(times: Sequence[datetime]) -> str:
    return f"{max(times):%Y-%m-%d %H:%M}" if times else ""
