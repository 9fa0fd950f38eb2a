"""Uploads, commits and collections that are killed at any step, over a directory and a bucket: fsck stays clean."""

import os
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from app.hub import directory, repository
from app.hub.context import HubContext
from app.hub.publishing import begin_repo
from app.hub.revisions import repo_named, resolve
from app.storage import register
from app.storage.integrity import check
from tests.unit.app.storage.conftest import Place
from tests.unit.app.storage.killed_writer import REPO, hub_of
from tests.unit.app.storage.test_contract import Killed


def begin(hub: HubContext) -> str:
    with hub.sessions.begin() as session:
        repo = directory.create_repo(session, REPO, directory.NewRepo())
        assert repo is not None
        return begin_repo(session, repo, author="").oid


def head(hub: HubContext) -> str:
    with hub.sessions() as session:
        return resolve(session, repo_named(session, REPO), "main").oid


def assert_whole(place: Place, hub: HubContext, step: int) -> None:
    def named() -> dict[str, int]:
        with hub.sessions() as session:
            return dict(register.named(session))

    assert check(hub.store, place.artefacts(), named).clean, f"step {step}"


def model_in(directory: Path) -> Path:
    directory.mkdir()
    (directory / "config.json").write_text('{"model_type": "llama"}')
    save_file({"a.weight": np.ones((600, 600), np.float32)}, directory / "model.safetensors")
    return directory


@pytest.mark.parametrize("operation", ["upload", "xet", "import"])
def test_what_comes_in_and_is_killed_at_any_step_is_there_as_a_whole_or_not_at_all(
    place: Place, tmp_path: Path, operation: str
) -> None:
    (tmp_path / "file").write_bytes(os.urandom((2 << 20) + 5))
    source = model_in(tmp_path / "model") if operation == "import" else tmp_path / "file"
    with hub_of(place) as hub:
        old = begin(hub)
        killed = Killed(place, operation, source)
        step, heads = 0, [old]
        while killed.at(step):
            assert_whole(place, hub, step)
            heads.append(head(hub))
            if heads[-1] != old:  # killed behind the COMMIT: once more from before it
                with hub.sessions.begin() as session:
                    repo = repo_named(session, REPO)
                    repository.move_ref(session, repo, "branch", "main", resolve(session, repo, old))
            step += 1
        killed.close()
        assert step > 15
        assert_whole(place, hub, step)
        assert head(hub) != old
        assert set(heads) <= {old, head(hub)}, "nothing between the two"
        hub.store.collect_abandoned()
        assert hub.store.collect_abandoned() == 0


def test_a_collection_that_is_killed_at_any_step_takes_no_more_and_is_finished_by_the_next(
    place: Place, tmp_path: Path
) -> None:
    (tmp_path / "loose").write_bytes(b"loose")
    with hub_of(place) as hub:
        begin(hub)
        kept, loose = hub.store.put_bytes(b"kept"), hub.store.put_file(tmp_path / "loose")
        with hub.sessions.begin() as session:
            repository.add_upload(session, repo_named(session, REPO).id, kept)
        killed = Killed(place, "collect")
        step = 0
        while killed.at(step):
            assert kept.sha256 in hub.store
            assert_whole(place, hub, step)
            hub.store.put_file(tmp_path / "loose")
            assert loose.sha256 in hub.store, "what is put again is there, whatever was condemned"
            step += 1
        killed.close()
        assert step > 5
        assert [sha256 for sha256, _ in hub.store.blobs()] == [kept.sha256]
