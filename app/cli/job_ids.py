"""A job's id as people type it: whole, or as much of its beginning as no other job has."""

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from app.cli.exits import UsageError

if TYPE_CHECKING:
    from app.client import Streamline

_WHOLE: Final = re.compile("[0-9a-f]{32}")
_BEGINNING: Final = re.compile("[0-9a-f]{1,31}")
_FEWEST: Final = 4
"""Fewer are more likely a slip of the hand than a job's name."""
_CANDIDATES_SHOWN: Final = 10


def whole_id(service: "Streamline", given: str) -> str:
    """Return the id of the one job whose id begins with `given`; one that is whole costs no request.

    What cannot be the beginning of an id is returned as it is: the service says that there is no such job.

    Raises:
        UsageError: it is too short, no job's id begins so, or several do.
    """
    beginning = given.strip().lower()
    if _WHOLE.fullmatch(beginning):
        return beginning
    if not _BEGINNING.fullmatch(beginning):
        return given
    if len(beginning) < _FEWEST:
        raise UsageError(f"{given!r} is too little of a job's id; name {_FEWEST} characters of it or more.")
    found = service.jobs(id_prefix=beginning, limit=_CANDIDATES_SHOWN + 1)["items"]
    if any(not job["id"].startswith(beginning) for job in found):  # a service of before it could be asked this
        raise UsageError("This service is of a release that takes whole ids only; `streamline status` lists them.")
    if not found:
        raise UsageError(f"No job's id begins with {given!r}; `streamline status` lists the jobs.")
    if len(found) > 1:
        raise UsageError(_several(given, found))
    return str(found[0]["id"])


def whole_ids(service: "Streamline", given: Sequence[str]) -> list[str]:
    """Return the ids of all of these, each once, in the order in which they were given.

    Raises:
        UsageError: as `whole_id`.
    """
    return list(dict.fromkeys(whole_id(service, one) for one in given))


def _several(given: str, jobs: Sequence[Mapping[str, Any]]) -> str:
    lines = [
        f"  {job['id']}  {job['state']:<9}  {job['created_at'][:16].replace('T', ' ')}  {job['spec']['model']['repo']}"
        for job in jobs[:_CANDIDATES_SHOWN]
    ]
    more = ["  and others"] if len(jobs) > _CANDIDATES_SHOWN else []
    return "\n".join([f"Several jobs' ids begin with {given!r}; name more of the one that is meant:", *lines, *more])
