"""Copies of an upstream: what is closed there is closed here, and asking there tells nobody what is closed here."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy.orm import Session, sessionmaker

from app.auth import keys
from app.auth.scopes import Scope
from app.db.models import Base, RepoRow
from app.db.session import connect, session_factory
from app.hub import directory
from app.hub.access import Caller
from app.hub.errors import GatedRepository, ReadOnlyCopy, UpstreamRefused, UpstreamUnavailable
from app.hub.publishing import StagedFile, commit_files
from app.hub.upstream.mirror import Mirror
from app.hub.upstream.remote import RemoteHub
from app.storage.local import LocalBlobStore
from app.storage.register import register_in
from tests.integration.api.conftest import Service, running, settings_for
from tests.integration.hub.faulty_proxy import Proxy, faulty_proxy
from tests.integration.hub.keyed import GATED, PRIVATE, PUBLIC, Keyed

Copying = Callable[[str | None], Mirror]


@pytest.fixture
def sessions(tmp_path: Path) -> Iterator[sessionmaker[Session]]:
    engine = connect(f"sqlite:///{tmp_path / 'copy.db'}")
    Base.metadata.create_all(engine)
    yield session_factory(engine)
    engine.dispose()


@pytest.fixture
def copying(keyed: Keyed, sessions: sessionmaker[Session], tmp_path: Path) -> Iterator[Copying]:
    """Makes a mirror that shows the upstream this token."""
    store = LocalBlobStore(tmp_path / "store", register=register_in(sessions))
    stack = ExitStack()

    def make(token: str | None) -> Mirror:
        hub = RemoteHub(keyed.service.url, token)
        directory = tmp_path / "upstream"
        stack.callback(hub.close)
        return Mirror(hub, sessions, sessions, store, directory, max_bytes=1 << 20, fresh_seconds=60)

    with stack:
        yield make


def copy_of(sessions: sessionmaker[Session], name: str) -> RepoRow | None:
    with sessions() as session:
        return directory.find_repo(session, name)


def test_what_is_closed_there_is_closed_here(keyed: Keyed, copying: Copying, sessions: sessionmaker[Session]) -> None:
    mirror = copying(keyed.keys["owner"])
    seen = {}
    for name in (PUBLIC, PRIVATE, GATED):
        mirror.ensure(name)
        row = copy_of(sessions, name)
        assert row is not None
        assert (row.upstream, row.owner) == (keyed.service.url, "")
        seen[name] = (row.private, row.gated)
    assert seen == {PUBLIC: (False, None), PRIVATE: (True, None), GATED: (False, "manual")}


def test_closing_there_closes_here_and_opening_there_opens_nothing(
    keyed: Keyed, copying: Copying, sessions: sessionmaker[Session]
) -> None:
    def visibility(private: bool) -> bool:
        answer = keyed.ask("owner", f"/api/models/{PUBLIC}/settings", "PUT", json={"private": private})
        assert answer.status_code == 200
        copying(keyed.keys["owner"]).ensure(PUBLIC)  # a new one, which has no answer in mind
        row = copy_of(sessions, PUBLIC)
        assert row is not None
        return row.private

    assert [visibility(private) for private in (False, True, False)] == [False, True, True]


def test_what_the_token_does_not_open_is_not_copied(
    keyed: Keyed, copying: Copying, sessions: sessionmaker[Session]
) -> None:
    mirror = copying(keyed.keys["other"])
    mirror.ensure(PRIVATE)
    for _ in range(2):  # the second one is told from memory
        with pytest.raises(GatedRepository):
            mirror.ensure(GATED)
    copying(None).ensure(PUBLIC)
    assert [copy_of(sessions, name) for name in (PRIVATE, GATED, PUBLIC)] == [None] * 3
    with pytest.raises(UpstreamUnavailable, match="STREAMLINE_UPSTREAM_TOKEN"):
        copying("hf_revoked").ensure(PUBLIC)


def test_a_copy_is_published_to_by_nobody(keyed: Keyed, copying: Copying, sessions: sessionmaker[Session]) -> None:
    copying(keyed.keys["owner"]).ensure(PUBLIC)
    with sessions.begin() as session, pytest.raises(ReadOnlyCopy):
        commit_files(session, PUBLIC, [StagedFile("a", 1, "0" * 64, "0" * 40)], "m", job_id="job")


@pytest.mark.parametrize("name", ["../etc", "a/b/c", "v1/jobs", "", "a\0b"])
def test_what_can_be_no_name_is_not_asked_for(copying: Copying, name: str) -> None:
    mirror = copying(None)
    mirror._hub.url = "http://127.0.0.1:1"  # nobody listens there
    mirror.ensure(name)
    mirror.ensure(PUBLIC, "a..b")


def test_why_a_private_model_is_not_copied_is_told_to_no_other_key(
    keyed: Keyed, copying: Copying, sessions: sessionmaker[Session]
) -> None:
    mirror = copying(keyed.keys["owner"])
    mirror._max_bytes = 1
    outsider = Caller(has_token=True, name="other", key="other", scope=Scope.SUBMIT)
    admin = replace(outsider, scope=Scope.ADMIN)
    for _ in range(2):  # asked, and from memory
        mirror.ensure(PRIVATE, who=outsider)
        with pytest.raises(UpstreamRefused, match="STREAMLINE_UPSTREAM_MAX_BYTES"):
            mirror.ensure(PRIVATE, who=admin)
        with pytest.raises(UpstreamRefused):
            mirror.ensure(PUBLIC, who=outsider)
    assert copy_of(sessions, PRIVATE) is None


def test_a_tree_that_names_a_path_twice_is_refused(
    keyed: Keyed, copying: Copying, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror = copying(keyed.keys["owner"])
    listed = mirror._hub.files
    monkeypatch.setattr(mirror._hub, "files", lambda *asked: listed(*asked) * 2)
    with pytest.raises(UpstreamRefused, match="would be two files"):
        mirror.ensure(PUBLIC)


@pytest.fixture
def behind(tmp_path: Path) -> Iterator[Callable[[str], tuple[Service, Proxy]]]:
    """Makes a service whose upstream is a proxy that leads nowhere yet."""
    with ExitStack() as stack:

        def make(name: str) -> tuple[Service, Proxy]:
            proxy = stack.enter_context(faulty_proxy(""))
            settings = settings_for(tmp_path / name, None)
            settings = settings.model_copy(update={"upstream": proxy.url, "upstream_fresh_seconds": 0.05})
            return stack.enter_context(running(settings)), proxy

        yield make


def answer_of(service: Service, repo: str) -> tuple[int, str | None]:
    answer = service.http.get(f"/{repo}/resolve/main/config.json", headers={"Authorization": "Bearer hf_any"})
    return answer.status_code, answer.headers.get("X-Error-Code")


def test_a_service_that_is_its_own_upstream_says_so(behind: Callable[[str], tuple[Service, Proxy]]) -> None:
    service, proxy = behind("own")
    proxy.target = service.url
    assert answer_of(service, "team/absent") == (508, "UpstreamLoop")
    assert len(proxy.asked) == 1, "told at the first step"
    assert "STREAMLINE_UPSTREAM" in service.http.get("/team/absent/resolve/main/a").json()["error"]
    assert answer_of(service, "demo/stories-24l") == (200, None), "what is here needs nobody"
    body: dict[str, Any] = {"model": {"repo": "team/absent"}, "target": {"sparsity": 0.25}}
    assert service.http.post("/v1/plans", json=body).json()["code"] == "upstream_unavailable"


def test_services_that_mirror_each_other_copy_what_one_has_and_agree_on_what_neither_has(
    behind: Callable[[str], tuple[Service, Proxy]],
) -> None:
    (left, to_right), (right, to_left) = behind("left"), behind("right")
    to_right.target, to_left.target = right.url, left.url
    config = left.parts.blobs.put_bytes(b"{}")
    with left.sessions.begin() as session:
        commit_files(
            session, "team/there", [StagedFile("config.json", config.size, config.sha256, config.git_oid)], "m"
        )
    assert answer_of(right, "team/there") == (200, None)
    assert answer_of(left, "team/absent") == answer_of(right, "team/absent") == (404, "RepoNotFound")
    asked = [*to_left.of("/team/absent/revision/main"), *to_right.of("/team/absent/revision/main")]
    assert 2 <= len(asked) <= 4, "each asks the other once, at most, for each of the two who asked"


@pytest.mark.parametrize("day", ["down", "up"])
def test_an_upstream_tells_nobody_which_names_are_private_here(
    behind: Callable[[str], tuple[Service, Proxy]], keyed: Keyed, day: str
) -> None:
    service, proxy = behind("private")
    proxy.target = keyed.service.url
    with service.sessions.begin() as session:
        made = {name: keys.create(session, name, scope) for name, scope in (("a", Scope.SUBMIT), ("b", Scope.SUBMIT))}
    headers = {name: {"Authorization": f"Bearer {token}"} for name, (_, token) in made.items()}
    body = {"name": "secret", "organization": "mine", "private": True}
    assert service.http.post("/api/repos/create", json=body, headers=headers["a"]).status_code == 200
    proxy.down = day == "down"

    def seen(repo: str, who: str, path: str) -> httpx.Response:
        return service.http.get(path.format(repo=repo), headers=headers[who])

    for path in ("/api/models/{repo}", "/api/models/{repo}/tree/main", "/{repo}/resolve/nope/config.json"):
        assert seen("mine/secret", "a", path).status_code == (404 if "nope" in path else 200)
        hidden, missing = seen("mine/secret", "b", path), seen("mine/absent", "b", path)
        assert hidden.status_code == missing.status_code == (502 if proxy.down else 404)
        assert hidden.headers["X-Error-Code"] == missing.headers["X-Error-Code"]
        # One that is down is not asked twice in a moment, and the words say so of whichever name came later.
        assert proxy.down or hidden.text.replace("mine/secret", "mine/absent") == missing.text
