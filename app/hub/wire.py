"""The JSON that Hugging Face clients read, made from rows. Names and forms are those of the Hub."""

import base64
import binascii
import hashlib
from collections.abc import Collection, Iterable
from datetime import datetime
from typing import Any

from app.db.models import ApiKeyRow, CommitRow, RepoRow
from app.hub.card import Card
from app.hub.errors import BadRequest
from app.hub.names import parents
from app.hub.objects import TreeEntry, TreeFile, tree_entries

Json = dict[str, Any]


def timestamp(moment: datetime) -> str:
    """`2026-01-31T12:00:00.000Z`, the one form that every client version parses."""
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"


def object_id(name: str) -> str:
    """What the Hub's `_id` is: 24 hex digits. Not of a row's number, which would count the repositories of others."""
    return hashlib.sha256(name.encode()).hexdigest()[:24]


def model_info(
    repo: RepoRow,
    commit: CommitRow | None,
    files: Iterable[TreeFile],
    *,
    tags: Iterable[str],
    card: Card,
    blobs: bool,
    security: bool = False,
    expand: Collection[str] = (),
) -> Json:
    """A repository at a commit (None: `main` has none yet); `expand` names the only properties that are wanted."""
    files = list(files)
    info: Json = {
        "_id": object_id(repo.name),
        "id": repo.name,
        "modelId": repo.name,
        "author": repo.name.rpartition("/")[0] or None,
        "sha": commit.oid if commit else None,
        "createdAt": timestamp(repo.created_at),
        "lastModified": timestamp(commit.created_at if commit else repo.last_modified),
        "private": repo.private,
        "gated": repo.gated or False,
        "disabled": False,
        "downloads": 0,
        "likes": 0,
        "tags": list(tags),
        "siblings": [_sibling(file, blobs=blobs) for file in files],
        "usedStorage": sum({file.sha256: file.size for file in files}.values()),
    }
    if card.metadata:
        info["cardData"] = dict(card.metadata)
    for name in ("pipeline_tag", "library_name"):
        if isinstance(value := card.metadata.get(name), str):
            info[name] = value
    if security or "securityRepoStatus" in expand:  # nothing here scans files, and no finding is not a finding of none
        info["securityRepoStatus"] = {"scansDone": False, "filesWithIssues": []}
    return {key: value for key, value in info.items() if key in {"_id", "id", *expand}} if expand else info


def _sibling(file: TreeFile, *, blobs: bool) -> Json:
    if not blobs:
        return {"rfilename": file.path}
    sibling: Json = {"rfilename": file.path, "size": file.size, "blobId": file.oid}
    if file.is_large:
        sibling["lfs"] = {"sha256": file.sha256, "size": file.size, "pointerSize": len(file.pointer)}
    return sibling


def tree_listing(files: Iterable[TreeFile], directory: str, *, recursive: bool) -> list[TreeEntry] | None:
    """The entries below `directory` (empty: the root) in path order; None where there is no such directory."""
    entries = tree_entries(files)
    found = entries.get(directory)
    if found is None or found.kind != "directory":
        return None
    prefix = f"{directory}/" if directory else ""
    return [
        entry
        for path, entry in entries.items()
        if path and path.startswith(prefix) and (recursive or "/" not in path[len(prefix) :])
    ]


def tree_entry(entry: TreeEntry, last_commit: CommitRow | None = None) -> Json:
    """One entry of a tree listing; `last_commit`, the one that gave it its content, only where it was asked for."""
    shown: Json = {"type": entry.kind, "oid": entry.oid, "size": entry.file.size if entry.file else 0}
    if entry.file and entry.file.is_large:
        large = entry.file
        shown["lfs"] = {"oid": large.sha256, "size": large.size, "pointerSize": len(large.pointer)}
    shown["path"] = entry.path
    if last_commit is not None:
        title = last_commit.message.partition("\n")[0]
        shown["lastCommit"] = {"id": last_commit.oid, "title": title, "date": timestamp(last_commit.created_at)}
    return shown


def last_changes(since: Iterable[tuple[str, int]], removed: Iterable[tuple[str, int]]) -> dict[str, int]:
    """For every path of a commit, directories too, the id of the commit that changed it last.

    Args:
        since: (path, id of the commit that gave it its content) of every file.
        removed: (path, id of the commit that removed it) of files that have been there before.
    """
    found: dict[str, int] = {}
    for path, commit_id in since:
        found[path] = commit_id
        for directory in parents(path):
            found[directory] = max(commit_id, found.get(directory, 0))
    for path, commit_id in removed:
        for directory in parents(path):
            if directory in found:
                found[directory] = max(commit_id, found[directory])
    return found


def refs(rows: Iterable[tuple[str, str, str]]) -> Json:
    """Branches and tags."""
    rows = list(rows)

    def of_kind(kind: str, prefix: str) -> list[Json]:
        return [
            {"name": name, "ref": f"refs/{prefix}/{name}", "targetCommit": oid}
            for row_kind, name, oid in rows
            if row_kind == kind
        ]

    return {"branches": of_kind("branch", "heads"), "converts": [], "tags": of_kind("tag", "tags")}


def commit(row: CommitRow) -> Json:
    """One commit of a history."""
    title, _, message = row.message.partition("\n")
    return {
        "id": row.oid,
        "title": title,
        "message": message.strip(),
        "authors": [{"user": row.author or "streamline"}],
        "date": timestamp(row.created_at),
    }


def access_request(key: ApiKeyRow, moment: datetime) -> Json:
    """A key that was granted access to a repository."""
    user = {"user": key.name, "fullname": key.name}
    return {"requestId": key.id, "user": user, "status": "accepted", "timestamp": timestamp(moment)}


def encode_cursor(last: str) -> str:
    """An opaque cursor behind the entry `last`."""
    return base64.urlsafe_b64encode(last.encode()).decode().rstrip("=")


def decode_cursor(cursor: str) -> str:
    """The entry that a cursor lies behind.

    Raises:
        BadRequest: it is none of ours.
    """
    try:
        return base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError):
        raise BadRequest("The cursor is not one of this service; begin again without it.") from None
