import hashlib
import os
import subprocess
from pathlib import Path

import pytest

from app.hub.objects import LARGE_BYTES, TreeFile, commit_oid, tree_entries, tree_oid
from app.storage.local import LocalBlobStore


def file(path: str, content: bytes = b"x") -> TreeFile:
    git = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    return TreeFile(path, len(content), hashlib.sha256(content).hexdigest(), git)


def git(directory: Path, *arguments: str) -> str:
    environment = {**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null"}
    done = subprocess.run(
        ["git", *arguments], cwd=directory, env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_trees_have_the_names_that_git_gives_them(tmp_path: Path) -> None:
    contents = {"config.json": b"{}", "a/b/c.txt": b"deep", "a.txt": b"", "a-b/x": b"1", "ab": b"2", "ü.md": b"3"}
    for name, content in contents.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", "-A")
    entries = tree_entries(file(name, content) for name, content in contents.items())
    root = git(tmp_path, "write-tree")
    assert entries[""].oid == root
    assert entries["a/b"].oid == git(tmp_path, "rev-parse", f"{root}:a/b")
    assert entries["a-b"].oid == git(tmp_path, "rev-parse", f"{root}:a-b")


def test_a_large_file_is_named_like_its_lfs_pointer() -> None:
    weights = file("model.safetensors", b"weights")
    assert weights.is_large
    assert weights.etag == weights.sha256
    assert weights.pointer.decode().splitlines() == [
        "version https://git-lfs.github.com/spec/v1",
        f"oid sha256:{weights.sha256}",
        "size 7",
    ]
    assert weights.pointer.endswith(b"\n")
    assert weights.oid == hashlib.sha1(b"blob %d\0" % len(weights.pointer) + weights.pointer).hexdigest()


@pytest.mark.parametrize(("size", "large"), [(LARGE_BYTES - 1, False), (LARGE_BYTES, True)])
def test_other_files_are_large_from_ten_mebibytes_on(size: int, large: bool) -> None:
    assert TreeFile("tokenizer.json", size, "0" * 64, "1" * 40).is_large is large


def test_the_order_of_files_does_not_change_the_tree() -> None:
    files = [file("b"), file("a/x"), file("a/b/c")]
    assert tree_oid(files) == tree_oid(reversed(files))
    assert list(tree_entries(files)) == ["", "a", "a/b", "a/b/c", "a/x", "b"]


def test_a_commits_name_depends_on_tree_parent_and_message_alone() -> None:
    names = {
        commit_oid("t" * 40, None, "m"),
        commit_oid("u" * 40, None, "m"),
        commit_oid("t" * 40, "p" * 40, "m"),
        commit_oid("t" * 40, None, "n"),
    }
    assert len(names) == 4
    assert commit_oid("t" * 40, None, "m") in names


def test_a_blobs_git_name_is_the_trees(tmp_path: Path) -> None:
    blob = LocalBlobStore(tmp_path).put_bytes(b"deep")
    assert blob.git_oid == file("c.txt", b"deep").oid
