"""What is read at the door from a store that may be far away is read with no database connection held."""

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import pytest
from sqlalchemy import Engine

from app.db.models import Base
from app.db.session import connect, session_factory
from app.hub.access import Caller
from app.hub.importing import import_directory
from app.jobs.door import Door
from app.jobs.spec.request import JobRequest, PlanRequest
from app.storage.local import LocalBlobStore


class WatchingStore(LocalBlobStore):
    """A store that notes how many connections are out of the pool while it is read."""

    def __init__(self, root: Path, engine: Engine) -> None:
        super().__init__(root)
        self._engine = engine
        self.held: list[int] = []

    def open(self, sha256: str) -> BinaryIO:
        self._look()
        return super().open(sha256)

    def local_path(self, sha256: str) -> Path:
        self._look()
        return super().local_path(sha256)

    def _look(self) -> None:
        self.held.append(self._engine.pool.checkedout())  # type: ignore[attr-defined]


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = connect(f"sqlite:///{tmp_path / 'test.db'}")
    Base.metadata.create_all(engine)
    yield engine
    engine.dispose()


def test_no_connection_is_held_while_the_store_is_read(engine: Engine, tmp_path: Path, stories_model: Path) -> None:
    store = WatchingStore(tmp_path / "store", engine)
    sessions = session_factory(engine)
    with sessions.begin() as session:
        for repo in ("team/model", "team/rival"):
            import_directory(session, store, stories_model, repo)
    store.held.clear()
    door = Door(sessions, store)
    asked = {"model": {"repo": "team/model"}, "target": {"layers": 3}, "benchmark": {"rivals": ["team/rival"]}}
    spec = door.admit(JobRequest.model_validate(asked), Caller()).spec
    assert spec["model"]["repo"] == "team/model"
    door.plan(PlanRequest.model_validate(asked), Caller())
    assert len(store.held) >= 8, "configs, headers and tokenizers were read"
    assert set(store.held) == {0}
