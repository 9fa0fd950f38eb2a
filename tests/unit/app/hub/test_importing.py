import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy.orm import Session, sessionmaker

from app.hub import directory
from app.hub.errors import BadName, ModelRefused
from app.hub.importing import Imported, allowed_directory, import_directory, inspect_model
from app.storage.local import LocalBlobStore

Sessions = sessionmaker[Session]


@pytest.fixture
def model(tmp_path: Path, stories_model: Path) -> Path:
    """A model directory that a test may damage."""
    directory = tmp_path / "models" / "stories"
    shutil.copytree(stories_model, directory)
    for path in directory.iterdir():
        path.chmod(0o644)
    return directory


def take(sessions: Sessions, store: LocalBlobStore, directory: Path, repo: str = "demo/stories") -> Imported:
    with sessions.begin() as session:
        return import_directory(session, store, directory, repo)


def test_a_model_directory_becomes_a_repository(sessions: Sessions, store: LocalBlobStore, model: Path) -> None:
    imported = take(sessions, store, model)
    assert imported.commit.new
    assert imported.files == len(list(model.iterdir()))
    assert imported.size == sum(path.stat().st_size for path in model.iterdir())


def test_importing_the_same_content_again_is_a_no_op(sessions: Sessions, store: LocalBlobStore, model: Path) -> None:
    first, again = take(sessions, store, model), take(sessions, store, model)
    assert again.commit.oid == first.commit.oid
    assert not again.commit.new


def test_changed_content_is_a_new_commit_on_the_old_one(sessions: Sessions, store: LocalBlobStore, model: Path) -> None:
    first = take(sessions, store, model)
    (model / "README.md").write_text("changed")
    assert take(sessions, store, model).commit.parent == first.commit.oid


def test_hidden_files_and_pickles_are_left_out_and_told(model: Path) -> None:
    (model / ".gitattributes").write_text("x")
    (model / ".cache").mkdir()
    (model / ".cache" / "token").write_text("secret")
    (model / "pytorch_model.bin").write_bytes(b"pickle")
    found = inspect_model(model)
    assert found.skipped == (".cache", ".gitattributes", "pytorch_model.bin")
    assert {path.name for path in found.files} == {
        path.name for path in model.iterdir() if path.name not in found.skipped
    }


def _remove_weights(model: Path) -> None:
    (model / "model.safetensors").unlink()


def _only_pickle(model: Path) -> None:
    (model / "model.safetensors").rename(model / "pytorch_model.bin")


def _truncate(model: Path) -> None:
    os.truncate(model / "model.safetensors", 1_000_000)


def _missing_shard(model: Path) -> None:
    (model / "model.safetensors").rename(model / "model-00001-of-00002.safetensors")
    index = {"weight_map": {"a": "model-00002-of-00002.safetensors"}}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))


def _corrupt_extra_weights(model: Path) -> None:
    (model / "adapter.safetensors").write_bytes(b"no header")


def _no_config(model: Path) -> None:
    (model / "config.json").unlink()


def _bad_config(model: Path) -> None:
    (model / "config.json").write_text("{")


def _huge_config(model: Path) -> None:
    (model / "config.json").write_text(" " * (2 << 20))


def _link_out(model: Path) -> None:
    outside = model.parent.parent / "secret"
    outside.write_text("secret")
    (model / "notes.txt").symlink_to(outside)


def _dangling_link(model: Path) -> None:
    (model / "notes.txt").symlink_to(model / "nowhere")


def _link_loop(model: Path) -> None:
    (model / "notes.txt").symlink_to(model / "notes.txt")


def _linked_directory(model: Path) -> None:
    (model / "again").symlink_to(model)


def _fifo(model: Path) -> None:
    os.mkfifo(model / "pipe")


def _odd_name(model: Path) -> None:
    (model / "a\nb").write_text("x")


REFUSED = [
    (_remove_weights, "no safetensors weights"),
    (_only_pickle, r"only pytorch_model\.bin.*save_pretrained"),
    (_truncate, r"model\.safetensors.*truncated"),
    (_missing_shard, r"model-00002-of-00002\.safetensors"),
    (_corrupt_extra_weights, r"adapter\.safetensors"),
    (_no_config, r"no config\.json"),
    (_bad_config, r"config\.json is not valid JSON"),
    (_huge_config, "larger than"),
    (_link_out, r"notes\.txt is a symbolic link that leaves"),
    (_dangling_link, r"notes\.txt is a symbolic link"),
    (_link_loop, r"notes\.txt is a symbolic link"),
    (_linked_directory, "again links to a directory"),
    (_fifo, "pipe is neither a file nor a directory"),
    (_odd_name, "cannot name a file"),
]


@pytest.mark.parametrize(("damage", "message"), REFUSED, ids=[damage.__name__[1:] for damage, _ in REFUSED])
def test_a_directory_that_is_no_sound_model_is_refused_with_the_reason(
    model: Path, damage: Callable[[Path], None], message: str
) -> None:
    damage(model)
    with pytest.raises(ModelRefused, match=message):
        inspect_model(model)


def test_a_refused_model_stores_nothing(sessions: Sessions, store: LocalBlobStore, model: Path, tmp_path: Path) -> None:
    _truncate(model)
    with pytest.raises(ModelRefused):
        take(sessions, store, model)
    with pytest.raises(BadName):
        take(sessions, store, model, repo="../stories")
    with sessions() as session:
        assert directory.find_repo(session, "demo/stories") is None
    assert not [path for path in (tmp_path / "store").rglob("*") if path.is_file()]


def test_a_snapshot_of_the_hugging_face_cache_imports_where_the_cache_is_the_root(
    sessions: Sessions, store: LocalBlobStore, model: Path, tmp_path: Path
) -> None:
    snapshot = tmp_path / "cache" / "models--demo" / "snapshots" / "0123"
    blobs = tmp_path / "cache" / "models--demo" / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for number, path in enumerate(sorted(model.iterdir())):
        shutil.copy(path, blobs / str(number))
        (snapshot / path.name).symlink_to(Path("../../blobs") / str(number))
    with pytest.raises(ModelRefused, match="leaves"):
        inspect_model(snapshot)
    with sessions.begin() as session:
        imported = import_directory(session, store, snapshot, "demo/cached", root=tmp_path / "cache")
    assert imported.commit.oid != take(sessions, store, model).commit.oid, "the message names another repository"
    assert imported.files == len(list(model.iterdir()))


def test_a_path_is_allowed_inside_a_root_after_links_are_followed(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    for made in (root / "model", outside):
        made.mkdir(parents=True)
    (root / "link").symlink_to(outside)
    (root / "file").touch()
    (tmp_path / "into").symlink_to(root / "model")
    assert allowed_directory(str(root / "model"), (root,)) == (root / "model", root)
    assert allowed_directory(str(tmp_path / "into"), (outside, root)) == (root / "model", root)
    for path in (outside, root / "link", root / ".." / "outside", tmp_path, Path("/etc"), Path("relative")):
        with pytest.raises(ModelRefused, match="STREAMLINE_MODEL_ROOTS"):
            allowed_directory(str(path), (root,))
    for path in (root / "file", root / "missing"):
        with pytest.raises(ModelRefused, match="not a directory"):
            allowed_directory(str(path), (root,))
    with pytest.raises(ModelRefused, match="NUL"):
        allowed_directory("a\0b", (root,))


def test_without_roots_the_setting_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelRefused, match="set STREAMLINE_MODEL_ROOTS"):
        allowed_directory(str(tmp_path), ())
