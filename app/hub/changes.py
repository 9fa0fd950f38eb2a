"""A commit as a client sends it: changes to what a branch holds, all of them or none.

The client has seen one commit (the base); the changes are applied to that, and the branch moves by compare-and-set from
that. Whoever comes second has to look again.
"""

import base64
import binascii
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session

from app.db.models import CommitRow
from app.hub import directory, repository
from app.hub.errors import (
    BadFile,
    BadName,
    BadRequest,
    EntryNotFound,
    RepositoryNotFound,
    StaleParent,
    TooLarge,
)
from app.hub.names import check_path, taken_twice
from app.hub.objects import TreeFile, tree_oid
from app.hub.publishing import check_unprotected, write_commit
from app.hub.revisions import DEFAULT_BRANCH
from app.storage.blobs import check_sha256

MAX_CHANGES = 25_000
MAX_FILES = 100_000
MAX_MESSAGE = 64 << 10


@dataclass(frozen=True, slots=True)
class Header:
    """What the first line of a commit says about the whole."""

    summary: str
    description: str
    parent: str | None
    """The commit that the client believes to be the newest, or its beginning."""

    @property
    def message(self) -> str:
        """As it is stored: the summary is the first line."""
        return f"{self.summary}\n\n{self.description}" if self.description else self.summary


@dataclass(frozen=True, slots=True)
class Content:
    """A file whose bytes are in the commit itself."""

    path: str
    content: bytes


@dataclass(frozen=True, slots=True)
class Stored:
    """A file whose bytes have been uploaded before."""

    path: str
    sha256: str
    size: int | None
    """None where the client does not say it."""


@dataclass(frozen=True, slots=True)
class Removed:
    """A file, or a folder with all that is in it, that goes."""

    path: str
    folder: bool


def parse_line(line: bytes) -> Header | Content | Stored | Removed:
    """One line of the commit's NDJSON.

    Raises:
        BadRequest: it is no line of a commit.
        BadFile: the file that it names is refused.
    """
    try:
        entry = json.loads(line)
        key, value = entry["key"], entry["value"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise BadRequest("Each line of a commit must be a JSON object with `key` and `value`.") from None
    if not isinstance(value, dict):
        raise BadRequest("The `value` of a commit's line must be a JSON object.")
    if key == "header":
        parent = value.get("parentCommit")
        header = Header(_text(value, "summary") or "Commit", _text(value, "description"), parent or None)
        if len(header.message) > MAX_MESSAGE:
            raise TooLarge(f"The commit's message is longer than {MAX_MESSAGE:,} characters.")
        if parent and not isinstance(parent, str):
            raise BadRequest("`parentCommit` must be a commit.")
        return header
    path = _path(value)
    match key:
        case "file":
            return Content(path, _content(path, value))
        case "lfsFile":
            return _stored(path, value)
        case "deletedFile":
            return Removed(path, folder=False)
        case "deletedFolder":
            return Removed(path.rstrip("/"), folder=True)
    raise BadRequest(
        f"A commit's line has the key {str(key)[:50]!r}; known are header, file, lfsFile, deletedFile and "
        "deletedFolder."
    )


def _text(value: Mapping[str, Any], name: str) -> str:
    text = value.get(name) or ""
    if not isinstance(text, str) or "\0" in text or not _encodable(text):
        raise BadRequest(f"`{name}` must be text without NUL.")
    return text


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _path(value: Mapping[str, Any]) -> str:
    path = value.get("path")
    if not isinstance(path, str):
        raise BadRequest("A file's `path` must be text.")
    return path


def check_file_path(path: str) -> str:
    """Return `path` if a commit may put a file there.

    Raises:
        BadFile: it may not.
    """
    try:
        return check_path(path)
    except BadName as error:
        raise BadFile(path, str(error)) from None


def _content(path: str, value: Mapping[str, Any]) -> bytes:
    check_file_path(path)
    content, encoding = value.get("content"), value.get("encoding", "utf-8")
    if not isinstance(content, str):
        raise BadFile(path, "its `content` must be text.")
    try:
        return base64.b64decode(content, validate=True) if encoding == "base64" else content.encode()
    except (binascii.Error, ValueError):
        raise BadFile(path, "its `content` is not what `encoding` says.") from None


def _stored(path: str, value: Mapping[str, Any]) -> Stored:
    check_file_path(path)
    oid, size = value.get("oid"), value.get("size")
    try:
        check_sha256(oid if isinstance(oid, str) else "")
    except ValueError:
        raise BadFile(path, "its `oid` must be a sha256 of 64 lower-case hex digits.") from None
    if size is not None and (not isinstance(size, int) or isinstance(size, bool) or size < 0):
        raise BadFile(path, "its `size` must be a number of bytes.")
    assert isinstance(oid, str)
    return Stored(path, oid, size)


def apply(
    repo: str, base: CommitRow, files: Iterable[TreeFile], changes: Iterable[TreeFile | Removed]
) -> list[TreeFile]:
    """The base's files after these changes, in path order; a later change of one path wins.

    Raises:
        EntryNotFound: a file or folder that goes is not there.
        BadFile: a file would stand where a folder does.
        TooLarge: the repository would hold more than MAX_FILES files.
    """
    held = {file.path: file for file in files}
    for change in changes:
        if isinstance(change, TreeFile):
            held[change.path] = change
            continue
        gone = [path for path in held if path.startswith(f"{change.path}/")] if change.folder else [change.path]
        if not gone or not all(path in held for path in gone):
            raise EntryNotFound(repo, base.oid, change.path)
        for path in gone:
            del held[path]
    if len(held) > MAX_FILES:
        raise TooLarge(f"A repository holds at most {MAX_FILES:,} files.")
    if both := taken_twice(held):
        raise BadFile(both, "it would be a file and a folder at once.")
    return sorted(held.values(), key=lambda file: file.path)


def claim_stored(possessed: Mapping[str, TreeFile], wanted: Sequence[Stored]) -> dict[Stored, TreeFile]:
    """The uploaded files under their paths.

    Args:
        possessed: by sha256, what writers of this repository have sent or it holds.
        wanted: what the commit names.

    Raises:
        BadFile: bytes that nobody has sent to this repository (they may be in another one), or another size.
    """
    found = {}
    for file in wanted:
        blob = possessed.get(file.sha256)
        if blob is None:
            raise BadFile(file.path, f"no bytes with sha256 {file.sha256} have been uploaded to this repository.")
        if file.size not in {None, blob.size}:
            raise BadFile(file.path, f"it has {blob.size:,} bytes where the commit says {file.size:,}.")
        found[file] = TreeFile(file.path, blob.size, blob.sha256, blob.git_oid)
    return found


def commit_changes(
    session: Session,
    repo_name: str,
    branch: str,
    base: CommitRow,
    files: Sequence[TreeFile],
    *,
    message: str,
    author: str,
    tags: Collection[str],
) -> CommitRow:
    """Put a commit with these files on top of the base and move the branch there, in the caller's transaction.

    Raises:
        RepositoryNotFound: it was deleted meanwhile.
        StaleParent: the branch has moved meanwhile.
        BadFile: an upload was collected meanwhile.
        ProtectedBranch: the branch is moved by jobs alone.
    """
    repo = directory.lock_repo(session, repo_name)
    if repo is None:
        raise RepositoryNotFound(repo_name)
    head = repository.commit_of_ref(session, repo.id, "branch", branch)
    if head is None or (head.id, head.oid) != (base.id, base.oid):  # SQLite gives a deleted row's id out again
        raise StaleParent(repo_name, branch)
    if branch == DEFAULT_BRANCH:
        check_unprotected(session, repo)
    tree = tree_oid(files)
    commit = write_commit(session, repo, files, tree=tree, parent=base, message=message, author=author, job_id=None)
    if not repository.move_ref_from(session, repo, branch, base, commit):
        raise StaleParent(repo_name, branch)
    if branch == DEFAULT_BRANCH:
        directory.main_moved(session, repo, tags)
    return commit
