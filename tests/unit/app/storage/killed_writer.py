"""Does one write again and again, each time in a child of its own that kills itself in front of a given step.

A step of a local store is whatever the interpreter audits about files; one of a bucket is a request; and each statement
and each COMMIT of a database is one. The code that runs is the product's own.
"""

import hashlib
import io
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from sqlalchemy import event

from app.auth.logins import Logins
from app.db.models import Base, CommitRow
from app.db.session import connect, session_factory
from app.hub import repository, xet_bridge
from app.hub.changes import commit_changes
from app.hub.context import HubContext
from app.hub.importing import import_directory
from app.hub.revisions import repo_named, resolve
from app.hub.uploads import Part, Uploads
from app.storage import register
from app.storage.bucket import Bucket
from app.storage.collection import collect
from tests.unit.app.hub.xet_objects import shard, xorb
from tests.unit.app.storage.conftest import Place

REPO = "team/model"
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
    match operation:
        case "put":
            blobs.put_file(files[0])
        case "artefacts":
            artefacts.write("job1", {"report.json": files[0]})
        case "upload":
            with hub_of(place, step) as hub:
                upload(hub, files[0])
        case "xet":
            with hub_of(place, step) as hub:
                upload_by_xet(hub, files[0])
        case "import":
            with hub_of(place, step) as hub, hub.sessions.begin() as session:
                import_directory(session, hub.store, files[0], REPO)
        case "collect":
            with hub_of(place, step) as hub:
                collect(hub.sessions, hub.store, grace_seconds=0)


@contextmanager
def hub_of(place: Place, step: Callable[[], None] | None = None) -> Iterator[HubContext]:
    """The hub over the place's store, with its database beside."""
    place.local.mkdir(parents=True, exist_ok=True)
    engine = connect(f"sqlite:///{place.local / 'hub.db'}")
    if step is None:
        Base.metadata.create_all(engine)
    else:
        event.listen(engine, "before_cursor_execute", lambda *_: step())
        event.listen(engine, "commit", lambda _: step())
    sessions = session_factory(engine)
    store = place.blobs(register.register_in(sessions))
    uploads = Uploads(place.local / "uploads", max_bytes=1 << 30, part_bytes=1 << 20)
    yield HubContext(sessions, sessions, store, uploads, Logins(place.local / "logins.key"))
    engine.dispose()


def upload(hub: HubContext, source: Path) -> None:
    """What the routes do with a file that comes in parts and the commit that names it."""
    content = source.read_bytes()
    name = hashlib.sha256(content).hexdigest()
    with hub.sessions() as session:
        repo = repo_named(session, REPO)
        base = resolve(session, repo, "main")
    for part in Part.all_of(repo.id, name, len(content), part_bytes=hub.uploads.part_bytes(len(content))):
        with hub.uploads.place(part) as file:
            file.write(content[part.offset : part.offset + part.length])
    whole = hub.uploads.assembled(part)
    hub.keep_upload(repo.id, whole, name)
    whole.unlink()
    commit_kept(hub, repo.id, base, name)


def upload_by_xet(hub: HubContext, source: Path) -> None:
    """What the routes do with the xorb and the shard of an unmodified client, and the commit that names the file."""
    content, xorb_name = source.read_bytes(), "ab" * 32
    chunks = [content[start : start + (1 << 16)] for start in range(0, len(content), 1 << 16)]
    with hub.sessions() as session:
        repo = repo_named(session, REPO)
        base = resolve(session, repo, "main")
    writer = xet_bridge.Writer("somebody", repo.id)
    with hub.uploads.staging(len(content)) as (path, file):
        file.write(xorb(*chunks))
        file.flush()
        xet_bridge.keep_xorb(hub.uploads, writer, xorb_name, path)
    described = io.BytesIO(shard((content, [(xorb_name, len(content), 0, len(chunks))])))

    def keep(path: Path, sha256: str) -> None:
        hub.keep_upload(repo.id, path, sha256)

    assert xet_bridge.rebuild(hub.uploads, writer, described, is_kept=lambda _: False, keep=keep) == 1
    commit_kept(hub, repo.id, base, hashlib.sha256(content).hexdigest())


def commit_kept(hub: HubContext, repo_id: int, base: CommitRow, sha256: str) -> None:
    """Name a file that the repository has been given."""
    with hub.sessions() as session:
        (held,) = repository.possessed(session, repo_id, [sha256]).values()
    files = [replace(held, path="model.safetensors")]
    with hub.sessions.begin() as session:
        commit_changes(session, REPO, "main", base, files, message="m", author="", tags=[])


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
