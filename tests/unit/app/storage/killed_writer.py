"""Does one write again and again, each time in a child of its own that kills itself in front of a given step.

A step of a local store is whatever the interpreter audits about files; one of a bucket is a request. The code that runs
is the product's own.
"""

import os
import signal
import sys
from pathlib import Path
from typing import Any

from app.storage.bucket import Bucket
from tests.unit.app.storage.conftest import Place

_FILE_EVENTS = {"open", "os.rename", "os.mkdir", "os.remove", "os.chmod", "fcntl.flock", "os.truncate"}


class Steps:
    """Counts, and ends the process when the number is reached."""

    def __init__(self, last: int) -> None:
        self.left = last

    def __call__(self) -> None:
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        self.left -= 1


def write(place: Place, operation: str, files: list[Path], last: int) -> None:
    step = Steps(last)
    blobs, artefacts = place.blobs(), place.artefacts()
    if place.kind == "local":
        sys.addaudithook(lambda event, _: step() if event in _FILE_EVENTS else None)
    else:
        send = Bucket._call

        def call(self: Bucket, *arguments: Any, **named: Any) -> Any:
            step()
            return send(self, *arguments, **named)

        Bucket._call = call  # type: ignore[method-assign]
    if operation == "put":
        blobs.put_file(files[0])
    else:
        artefacts.write("job1", {"report.json": files[0]})


def main() -> None:
    kind, url, endpoint, local, operation, *files = sys.argv[1:]
    place = Place(kind, url, endpoint, Path(local))
    for line in sys.stdin:
        child = os.fork()  # before anything has started a thread
        if child == 0:
            write(place, operation, [Path(file) for file in files], int(line))
            os._exit(0)
        _, status = os.waitpid(child, 0)
        killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        print("killed" if killed else "done" if status == 0 else f"status {status}", flush=True)


if __name__ == "__main__":
    main()
