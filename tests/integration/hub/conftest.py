"""A real server on a loopback port, and real clients in processes of their own.

The clients read `HF_ENDPOINT` when they are imported, so each one runs in a subprocess with a fresh `HF_HOME`.
"""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, MutableMapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import FastAPI, Request
from starlette.types import ASGIApp, Message, Receive, Send

from app.api.hub.application import install_hub
from app.api.hub.routing import caller
from app.auth.logins import Logins
from app.auth.scopes import Scope
from app.db.models import ApiKeyRow, Base
from app.db.session import connect, session_factory
from app.hub import directory
from app.hub.access import Caller
from app.hub.context import HubContext
from app.hub.errors import InvalidCredentials
from app.hub.importing import import_directory
from app.hub.publishing import StagedFile, commit_files
from app.hub.revisions import repo_named
from app.hub.uploads import Uploads
from app.storage.local import LocalBlobStore
from tests.integration.hub.keyed import keyed

__all__ = ["keyed"]

MODEL = "demo/stories-24l"
BIG_BYTES = 24 << 20
MANY_FILES = 1100
MAX_UPLOAD_BYTES = 64 << 20
PART_BYTES = 6 << 20


@dataclass
class Transfer:
    """One request as the server saw it."""

    method: str
    path: str
    range: str | None
    status: int = 0
    sent: int = 0


@dataclass
class Wire:
    """Records what goes over the wire, and cuts a transfer where a test asks for it."""

    transfers: list[Transfer] = field(default_factory=list)
    cut: tuple[str, int] | None = None
    """(end of a path, bytes): the next GET of that path loses its connection after so many bytes."""

    def wrap(self, app: ASGIApp) -> ASGIApp:
        async def recording(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
            if scope["type"] != "http":
                return await app(scope, receive, send)
            headers = dict(scope["headers"])
            transfer = Transfer(scope["method"], scope["path"], (headers.get(b"range") or b"").decode() or None)
            self.transfers.append(transfer)

            async def counting(message: Message) -> None:
                transfer.status = message.get("status", transfer.status)
                transfer.sent += len(message.get("body", b"")) if transfer.method != "HEAD" else 0
                if self.cut and transfer.path.endswith(self.cut[0]) and transfer.sent > self.cut[1]:
                    self.cut = None
                    raise ConnectionResetError("cut by the test")
                await send(message)

            return await app(scope, receive, counting)

        return recording

    def file_bytes(self) -> int:
        return sum(transfer.sent for transfer in self.transfers if "/resolve/" in transfer.path)


@dataclass(frozen=True)
class Hub:
    """The running server, what lies in it, and a way to run clients against it."""

    url: str
    wire: Wire
    commits: dict[str, str]
    """What the tests ask for by name -> commit."""
    big: bytes
    http: httpx.Client


def table_caller(request: Request) -> Caller:
    """Everybody holds a key that owns nothing and was granted nothing, so that each row of the error table is met."""
    authorization = request.headers.get("authorization")
    if authorization == "Bearer hf_bad":
        raise InvalidCredentials
    return Caller(authorization is not None, "someone", "someone", Scope.SUBMIT)


@pytest.fixture(scope="session")
def hub(tmp_path_factory: pytest.TempPathFactory, stories_model: Path) -> Iterator[Hub]:
    root = tmp_path_factory.mktemp("hub")
    engine = connect(f"sqlite:///{root / 'hub.db'}")
    Base.metadata.create_all(engine)
    sessions = session_factory(engine)
    with sessions.begin() as session:  # of `table_caller`: links end with the key that they were made for
        session.add(ApiKeyRow(id="someone", name="someone", sha256="", scope=Scope.SUBMIT.value))
    store = LocalBlobStore(root / "store")
    big = os.urandom(BIG_BYTES)
    commits = _fill(sessions.begin, store, stories_model, big)

    app = FastAPI()
    uploads = Uploads(root / "uploads", max_bytes=MAX_UPLOAD_BYTES, part_bytes=PART_BYTES)
    install_hub(
        app, HubContext(session_factory(engine, read_only=True), sessions, store, uploads, Logins(root / "logins.key"))
    )
    app.dependency_overrides[caller] = table_caller
    wire = Wire()
    server = uvicorn.Server(
        uvicorn.Config(
            wire.wrap(app), port=0, log_level="error", log_config=None, access_log=False, ws="none", lifespan="off"
        )
    )
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    with httpx.Client(base_url=url) as http:
        yield Hub(url, wire, commits, big, http)
    server.should_exit = True
    thread.join()
    engine.dispose()


def _fill(begin: Callable[[], Any], store: LocalBlobStore, stories_model: Path, big: bytes) -> dict[str, str]:
    def staged(**contents: bytes) -> list[StagedFile]:
        return [
            StagedFile(name.replace("__", "/").replace("_", "."), blob.size, blob.sha256, blob.git_oid)
            for name, blob in ((name, store.put_bytes(content)) for name, content in contents.items())
        ]

    with begin() as session:
        model = import_directory(session, store, stories_model, MODEL).commit
        bare = import_directory(session, store, stories_model, "stories").commit
        stories = [
            StagedFile(path.name, blob.size, blob.sha256, blob.git_oid)
            for path, blob in ((path, store.put_file(path)) for path in stories_model.iterdir())
        ]
        slash = commit_files(
            session, MODEL, [*stories, *staged(extra_txt=b"x")], "More\n\nDetails.", ref="feature/x", tag="v1/rc"
        )
        tagged = commit_files(session, MODEL, [*stories, *staged(NOTES_md=b"n")], "Tag", ref=None, tag="v1")
        nested = commit_files(session, "team/nested", staged(a_txt=b"1", d__b_txt=b"2", d__e__c_txt=b"3"), "One")
        newer = commit_files(session, "team/nested", staged(a_txt=b"9", d__b_txt=b"2", d__e__c_txt=b"3"), "Two")
        commit_files(session, "team/big", staged(big_bin=big, empty_txt=b""), "Big")
        blob = store.put_bytes(b"same")
        many = [StagedFile(f"{index:05}.txt", blob.size, blob.sha256, blob.git_oid) for index in range(MANY_FILES)]
        commit_files(session, "team/many", many, "Many")
        commit_files(session, "team/private", staged(config_json=b"{}"), "Secret", private=True)
        commit_files(session, "team/gated", staged(config_json=b"{}"), "Secret")
        directory.configure(session, repo_named(session, "team/gated"), {"gated": "manual"})
        commit_files(session, "team/missed", staged(config_json=b"{}"), "Missed a gate", ref=None, tag="job-1")
    return {
        "main": model.oid,
        "bare": bare.oid,
        "feature/x": slash.oid,
        "v1": tagged.oid,
        "nested": nested.oid,
        "nested newer": newer.oid,
    }


@pytest.fixture
def client(hub: Hub, tmp_path: Path) -> Callable[..., Any]:
    """Run Python code in a fresh process with the stock clients pointed at the hub; returns what it prints as JSON."""

    def run(code: str, *, home: str = "home", token: str | None = None) -> Any:
        script = f"import json\nresult = None\n{code}\nprint('RESULT', json.dumps(result))"
        done = subprocess.run(
            [sys.executable, "-c", script],
            env=client_environment(hub, tmp_path / home, token),
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.rpartition("RESULT ")[2])

    return run


def client_environment(hub: Hub, home: Path, token: str | None = None) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "PYTHON", "STREAMLINE_"))}
    own = {"HF_ENDPOINT": hub.url, "HF_HOME": str(home), "HF_HUB_DISABLE_TELEMETRY": "1", "OMP_NUM_THREADS": "2"}
    return kept | own | ({"HF_TOKEN": token} if token else {})
