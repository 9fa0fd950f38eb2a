"""Git's names for files, directories and commits, computed from rows alone.

Clients compare these names to tell what they have. Files that the Hugging Face Hub would keep in git LFS are named like
their LFS pointer (https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md), as it does.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

LARGE_BYTES = 5 << 20
"""From this size on a file is `large`: its ETag is its sha256."""


@dataclass(frozen=True, slots=True)
class TreeFile:
    """A file of a commit."""

    path: str
    size: int
    """Bytes."""
    sha256: str
    git_oid: str
    """Git's name for the content (not for the pointer of a large file)."""

    @property
    def is_large(self) -> bool:
        """Whether clients see it as a git LFS file."""
        return self.size >= LARGE_BYTES or self.path.endswith(".safetensors")

    @property
    def pointer(self) -> bytes:
        """The git LFS pointer that stands for a large file in git's tree."""
        return f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {self.size}\n".encode()

    @property
    def oid(self) -> str:
        """Git's name for the entry in its tree: the content, or a large file's pointer."""
        return _object_name("blob", self.pointer) if self.is_large else self.git_oid

    @property
    def etag(self) -> str:
        """What the file's ETag says, without the quotes."""
        return self.sha256 if self.is_large else self.git_oid


@dataclass(frozen=True, slots=True)
class TreeEntry:
    """A file or a directory as a tree listing shows it."""

    kind: Literal["file", "directory"]
    path: str
    oid: str
    file: TreeFile | None = None


def tree_entries(files: Iterable[TreeFile]) -> dict[str, TreeEntry]:
    """Every file and every directory by its path, in path order; the root is the entry with the empty path."""
    children: dict[str, dict[str, TreeEntry]] = {"": {}}
    for file in files:
        directory, _, name = file.path.rpartition("/")
        _make_directories(children, directory)
        children[directory][name] = TreeEntry("file", file.path, file.oid, file)
    entries: dict[str, TreeEntry] = {}
    for directory in sorted(children, key=lambda path: path.count("/") if path else -1, reverse=True):  # deepest first
        tree = TreeEntry("directory", directory, _tree_oid(children[directory]))
        entries[directory] = tree
        if directory:
            parent, _, name = directory.rpartition("/")
            children[parent][name] = tree
        entries.update({entry.path: entry for entry in children[directory].values()})
    return dict(sorted(entries.items()))


def _make_directories(children: dict[str, dict[str, TreeEntry]], directory: str) -> None:
    while directory not in children:
        children[directory] = {}
        directory = directory.rpartition("/")[0]


def _tree_oid(children: Mapping[str, TreeEntry]) -> str:
    # Git sorts a directory as if its name ended in a slash.
    ordered = sorted(
        children.items(), key=lambda item: (item[0] + ("/" if item[1].kind == "directory" else "")).encode()
    )
    body = b"".join(
        (b"40000 " if entry.kind == "directory" else b"100644 ") + name.encode() + b"\0" + bytes.fromhex(entry.oid)
        for name, entry in ordered
    )
    return _object_name("tree", body)


def tree_oid(files: Iterable[TreeFile]) -> str:
    """Git's name for the whole tree: equal exactly if all paths and contents are."""
    return tree_entries(files)[""].oid


def commit_oid(tree: str, parent: str | None, message: str) -> str:
    """A commit's name: like git's, over tree, parent and message, but without an author and a time.

    So the same content on the same parent with the same message is the same commit, whoever publishes it and when.
    """
    lines = [f"tree {tree}", *([f"parent {parent}"] if parent else []), "", message]
    return _object_name("commit", "\n".join(lines).encode())


def _object_name(kind: str, body: bytes) -> str:
    return hashlib.sha1(f"{kind} {len(body)}\0".encode() + body, usedforsecurity=False).hexdigest()
