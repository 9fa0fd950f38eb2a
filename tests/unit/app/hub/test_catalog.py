import json
from pathlib import Path

import pytest
from sqlalchemy.orm import Session, sessionmaker

from app.hub import catalog
from app.hub.errors import EntryNotFound, RepositoryNotFound, RevisionNotFound, UnreadableModel
from app.hub.importing import import_directory
from app.hub.publishing import StagedFile, commit_files
from app.storage.local import LocalBlobStore

Sessions = sessionmaker[Session]


@pytest.fixture
def commit(sessions: Sessions, store: LocalBlobStore, stories_model: Path) -> str:
    with sessions.begin() as session:
        return import_directory(session, store, stories_model, "demo/stories-24l").commit.oid


def publish(sessions: Sessions, store: LocalBlobStore, **contents: bytes) -> None:
    files = []
    for name, content in contents.items():
        blob = store.put_bytes(content)
        files.append(StagedFile(name.replace("_", "."), blob.size, blob.sha256, blob.git_oid))
    with sessions.begin() as session:
        commit_files(session, "team/model", files, "m")


def test_a_materialized_model_is_byte_identical_and_read_only(
    sessions: Sessions, store: LocalBlobStore, commit: str, stories_model: Path, tmp_path: Path
) -> None:
    with sessions() as session:
        revision = catalog.revision_of(session, "demo/stories-24l", "main")
    assert revision.commit == commit
    catalog.materialize(store, revision.files, tmp_path / "model")
    for original in stories_model.iterdir():
        copy = tmp_path / "model" / original.name
        assert copy.read_bytes() == original.read_bytes()
        assert copy.stat().st_mode & 0o222 == 0


def test_materializing_again_follows_the_revision(sessions: Sessions, store: LocalBlobStore, tmp_path: Path) -> None:
    into = tmp_path / "model"
    for contents in ({"a_txt": b"1", "b_txt": b"2"}, {"a_txt": b"3"}):
        publish(sessions, store, **contents)
        with sessions() as session:
            files = catalog.revision_of(session, "team/model", "main").files
        for _ in range(2):
            catalog.materialize(store, files, into)
        expected = {name.replace("_", "."): content for name, content in contents.items()}
        assert {path.name: path.read_bytes() for path in into.iterdir()} == expected


def test_the_config_comes_with_its_commit(
    sessions: Sessions, store: LocalBlobStore, commit: str, stories_model: Path
) -> None:
    with sessions() as session:
        revision = catalog.revision_of(session, "demo/stories-24l", "main")
    assert revision.commit == commit
    assert catalog.config_of(store, revision) == json.loads((stories_model / "config.json").read_text())


def test_tensor_headers_tell_names_and_shapes(sessions: Sessions, store: LocalBlobStore, commit: str) -> None:
    with sessions() as session:
        revision = catalog.revision_of(session, "demo/stories-24l", commit)
    headers = catalog.tensor_headers_of(store, revision)
    assert list(headers) == ["model.safetensors"]
    tensors = headers["model.safetensors"].tensors
    assert tensors["model.embed_tokens.weight"].shape == (4096, 128)


def test_the_tokenizer_is_a_local_file(
    sessions: Sessions, store: LocalBlobStore, commit: str, stories_model: Path
) -> None:
    with sessions() as session:
        revision = catalog.revision_of(session, "demo/stories-24l", commit)
    path = catalog.tokenizer_path(store, revision)
    assert path.read_bytes() == (stories_model / "tokenizer.json").read_bytes()


def test_what_is_missing_is_named(sessions: Sessions, store: LocalBlobStore) -> None:
    publish(sessions, store, README_md=b"no model here")
    with sessions() as session:
        with pytest.raises(RepositoryNotFound, match="nobody/nothing"):
            catalog.revision_of(session, "nobody/nothing", "main")
        with pytest.raises(RepositoryNotFound):
            catalog.revision_of(session, "../etc", "main")
        with pytest.raises(RevisionNotFound, match="v9"):
            catalog.revision_of(session, "team/model", "v9")
        bare = catalog.revision_of(session, "team/model", "main")
    with pytest.raises(EntryNotFound, match=r"config\.json"):
        catalog.config_of(store, bare)
    with pytest.raises(EntryNotFound, match=r"tokenizer\.json"):
        catalog.tokenizer_path(store, bare)


@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff", b" " * (1 << 20) + b"{}", b"[" * 100_000])
def test_a_config_that_is_no_object_is_a_typed_error(sessions: Sessions, store: LocalBlobStore, content: bytes) -> None:
    publish(sessions, store, config_json=content)
    with sessions() as session:
        revision = catalog.revision_of(session, "team/model", "main")
    with pytest.raises(UnreadableModel, match=r"config\.json"):
        catalog.config_of(store, revision)


def test_a_corrupt_weights_file_is_named(sessions: Sessions, store: LocalBlobStore) -> None:
    publish(sessions, store, model_safetensors=b"not a header")
    with sessions() as session:
        revision = catalog.revision_of(session, "team/model", "main")
    with pytest.raises(UnreadableModel, match=r"model\.safetensors"):
        catalog.tensor_headers_of(store, revision)
