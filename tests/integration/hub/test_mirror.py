"""Copies of an upstream that has keys: what is closed there is closed here, whatever this service is let into."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from sqlalchemy.orm import Session, sessionmaker

from app.db.models import Base, RepoRow
from app.db.session import connect, session_factory
from app.hub import directory
from app.hub.errors import GatedRepository, ReadOnlyCopy, UpstreamUnavailable
from app.hub.publishing import StagedFile, commit_files
from app.hub.upstream.mirror import Mirror
from app.hub.upstream.remote import RemoteHub
from app.storage.local import LocalBlobStore
from app.storage.register import register_in
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
