"""Hubs that are each other's upstream: how a look-up is told that has come round to where it began.

A service that asks its upstream names itself behind those that have asked it. Who finds itself there asks no further.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from uuid import uuid4

from app.hub.errors import UpstreamLoop
from app.storage.staging import make_once

HEADER = "X-Streamline-Via"
_LONGEST = 8
"""Hubs in one chain; a longer one has no purpose, and what is behind its end is not asked."""


def own_name(directory: Path) -> str:
    """The name of this service, one for all its processes; it tells nothing about it."""
    path = directory / "name"
    if not path.exists():
        make_once(path, uuid4().hex.encode())
    return path.read_text()


def passed_by(headers: Mapping[str, str]) -> tuple[str, ...]:
    """The services that have passed a request on, the first one first (headers found by their lower-case names)."""
    names = headers.get(HEADER.lower(), "").split(",")
    return tuple(name.strip() for name in names if name.strip())


def header_of(names: Sequence[str]) -> dict[str, str]:
    """The header that names these."""
    return {HEADER: ", ".join(names)}


def goes_on(name: str, via: Sequence[str]) -> bool:
    """Whether this service may ask its upstream for who comes over `via`: hubs that mirror each other end there.

    Raises:
        UpstreamLoop: this service asks itself, which no setting can mean.
    """
    if via and via[-1] == name:
        raise UpstreamLoop
    return name not in via and len(via) < _LONGEST
