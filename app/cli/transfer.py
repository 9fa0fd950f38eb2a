"""One file over HTTP: tried again where it breaks off or stalls, gone on with where it is large, and checked."""

import glob
import hashlib
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx

from app.cli.exits import BrokenOffError, UsageError
from app.cli.transfer_display import Display
from app.client.retries import PASSING_STATUSES, reason_of

_TRIES: Final = 5
"""In a row that bring nothing more."""
_FIRST_PAUSE_SECONDS: Final = 1.0
_TIMEOUT: Final = httpx.Timeout(20.0, connect=5.0)
"""A transfer that is silent for so long has stalled."""
_CHUNK_BYTES: Final = 1 << 20


@dataclass(frozen=True)
class RemoteFile:
    """A file of a revision, as the hub tells of it."""

    path: str
    url: str
    size: int | None
    sha256: str | None
    """Of large files; the others are fetched as a whole each time."""


def fetch(http: httpx.Client, file: RemoteFile, target: Path, display: Display) -> None:
    """Fetch one file; one that is there already with the right sha256 is kept.

    Raises:
        BrokenOffError: several tries in a row brought nothing more; what has come is kept.
        UsageError: it arrived damaged.
        httpx.HTTPStatusError: the hub does not give it.
    """
    if file.sha256 and target.is_file() and _sha256(target, file, display) == file.sha256:
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    # Named by its content: what another revision has left here is not gone on with.
    staged = target.with_name(f"{target.name}.{file.sha256[:12]}.part" if file.sha256 else f"{target.name}.part")
    _receive_all(http, file, staged, display)
    if file.sha256 and _sha256(staged, file, display) != file.sha256:
        staged.unlink()
        raise UsageError(f"{target.name} arrived damaged; run the same command again.")
    staged.replace(target)
    for other in target.parent.glob(f"{glob.escape(target.name)}.{'[0-9a-f]' * 12}.part"):
        other.unlink()  # begun of another revision


def _receive_all(http: httpx.Client, file: RemoteFile, staged: Path, display: Display) -> None:
    tries, pause, most = 0, _FIRST_PAUSE_SECONDS, _kept(file, staged)
    while True:
        try:
            return _receive(http, file, staged, display)
        except (httpx.TransportError, httpx.HTTPStatusError) as fault:
            if not _passes(fault):
                raise
        kept = _kept(file, staged)
        if kept > most:
            tries, pause, most = 0, _FIRST_PAUSE_SECONDS, kept
        else:
            tries += 1
        if tries == _TRIES:
            raise BrokenOffError(_broken_off(file, kept))
        display.say(f"The transfer of {file.path} broke off; trying on.")
        time.sleep(pause)
        pause *= 2


def _passes(fault: httpx.TransportError | httpx.HTTPStatusError) -> bool:
    """Whether another try may end otherwise: a certificate that is not accepted, or a missing right, stays so."""
    if isinstance(fault, httpx.HTTPStatusError):
        return fault.response.status_code in PASSING_STATUSES
    return reason_of(fault) is None


def _kept(file: RemoteFile, staged: Path) -> int:
    return staged.stat().st_size if file.sha256 and staged.is_file() else 0


def _broken_off(file: RemoteFile, kept: int) -> str:
    of = "" if file.size is None else f" of {file.size:,}"
    part = f", and the first {kept:,}{of} bytes of this one," if kept else ""
    return (
        f"The transfer of {file.path} broke off, and {_TRIES} tries brought nothing more. "
        f"The files that are whole{part} are kept: the same command goes on from there."
    )


def _receive(http: httpx.Client, file: RemoteFile, staged: Path, display: Display) -> None:
    there = _kept(file, staged)
    display.begin(file.path, file.size, there)
    headers = {"Range": f"bytes={there}-"} if there else {}
    with http.stream("GET", file.url, headers=headers, timeout=_TIMEOUT) as stream:
        if stream.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:  # it is whole, or damaged
            return
        stream.raise_for_status()
        goes_on = stream.status_code == httpx.codes.PARTIAL_CONTENT
        done = there if goes_on else 0
        with staged.open("ab" if goes_on else "wb") as out:
            for chunk in stream.iter_bytes():  # as they come: what is gathered when a connection breaks off is lost
                out.write(chunk)
                done += len(chunk)
                display.at(done)


def _sha256(path: Path, file: RemoteFile, display: Display) -> str:
    display.begin(f"checking {file.path}", path.stat().st_size, 0)
    digest, done = hashlib.sha256(), 0
    with path.open("rb") as content:
        while chunk := content.read(_CHUNK_BYTES):
            digest.update(chunk)
            done += len(chunk)
            display.at(done)
    return digest.hexdigest()
