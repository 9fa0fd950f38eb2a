"""A service with API keys of every scope, over both databases, and repositories of each kind."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from app.auth import keys
from app.auth.scopes import Scope
from app.hub import directory
from app.hub.publishing import StagedFile, commit_files
from app.hub.revisions import repo_named
from tests.conftest import postgres_database
from tests.integration.api.conftest import BACKENDS, Service, running, settings_for

PRIVATE, GATED, PUBLIC = "team/secret", "team/asking", "team/open"


@dataclass(frozen=True)
class Keyed:
    """A service with keys: `owner` made the repositories, `other` and `reader` did not, `friend` was granted access."""

    service: Service
    keys: dict[str, str]
    ids: dict[str, str]

    def ask(self, who: str | None, path: str, method: str = "GET", **more: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.keys[who]}"} if who else {}
        return self.service.http.request(method, path, headers=headers, **more)

    def commit(
        self,
        who: str,
        repo: str,
        *lines: tuple[str, dict[str, Any]],
        branch: str = "main",
        parent: str | None = None,
        summary: str = "m",
    ) -> httpx.Response:
        """Send a commit of these (key, value) lines."""
        header: dict[str, Any] = {"summary": summary, "description": ""} | ({"parentCommit": parent} if parent else {})
        entries = [("header", header), *lines]
        body = b"".join(json.dumps({"key": key, "value": value}).encode() + b"\n" for key, value in entries)
        where = f"/api/models/{repo}/commit/{quote(branch, safe='')}"
        return self.ask(who, where, "POST", content=body)

    def make(self, who: str, repo: str, **settings: Any) -> None:
        organization, _, name = repo.rpartition("/")
        body = {"name": name, "organization": organization or None, "type": "model"} | settings
        answer = self.ask(who, "/api/repos/create", "POST", json=body)
        assert answer.status_code == 200, answer.text

    def files(self, who: str, repo: str, revision: str = "main") -> list[str]:
        where = f"/api/models/{repo}/tree/{quote(revision, safe='')}?recursive=true"
        return [entry["path"] for entry in self.ask(who, where).json() if entry["type"] == "file"]

    def batch(self, who: str, repo: str, *contents: bytes, **more: Any) -> httpx.Response:
        objects = [{"oid": hashlib.sha256(content).hexdigest(), "size": len(content)} for content in contents]
        body = {"operation": "upload", "transfers": ["basic", "multipart"], "objects": objects, "hash_algo": "sha256"}
        return self.ask(who, f"/{repo}.git/info/lfs/objects/batch", "POST", json=body | more)

    def listed(self, who: str | None, **query: Any) -> list[str]:
        return [model["id"] for model in self.ask(who, "/api/models", params=query).json()]


@pytest.fixture(scope="module", params=BACKENDS)
def keyed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keyed]:
    with ExitStack() as stack:
        url = stack.enter_context(postgres_database()) if request.param == "postgres" else None
        service = stack.enter_context(running(settings_for(tmp_path_factory.mktemp("keyed") / "data", url)))
        made, ids = {}, {}
        card = service.parts.blobs.put_bytes(b"---\nlicense: mit\ntags: [tiny]\n---\n# Card\n")
        config = service.parts.blobs.put_bytes(b"{}")
        files = [
            StagedFile("README.md", card.size, card.sha256, card.git_oid),
            StagedFile("config.json", config.size, config.sha256, config.git_oid),
        ]
        with service.sessions.begin() as session:
            for name, scope in [
                ("owner", Scope.SUBMIT),
                ("other", Scope.SUBMIT),
                ("friend", Scope.READ),
                ("reader", Scope.READ),
                ("admin", Scope.ADMIN),
            ]:
                row, made[name] = keys.create(session, name, scope)
                ids[name] = row.id
            for name in (PRIVATE, GATED, PUBLIC):
                commit_files(session, name, files, "m", private=name == PRIVATE, owner=ids["owner"], tags=["tiny"])
            directory.configure(session, repo_named(session, GATED), {"gated": "manual"})
            for name in (PRIVATE, GATED):
                directory.grant(session, repo_named(session, name), directory.keys_called(session, "friend"))
        yield Keyed(service, made, ids)
