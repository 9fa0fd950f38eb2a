"""What the rest of the service asks the hub: the files of a model, its config, its tensors, its tokenizer."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from app.core.safetensors_file import CorruptSafetensors, Header, parse_header
from app.hub import repository
from app.hub.errors import EntryNotFound, UnreadableModel
from app.hub.objects import TreeFile
from app.hub.revisions import repo_named, resolve
from app.storage.blobs import BlobStore
from app.storage.staging import flush_directory

CONFIG_FILE = "config.json"
TOKENIZER_FILE = "tokenizer.json"
MAX_CONFIG_BYTES = 1 << 20


@dataclass(frozen=True)
class Revision:
    """A commit and its files: all that has to be known of it to read from the store, with no transaction held."""

    repo: str
    commit: str
    """40 hex digits."""
    files: tuple[TreeFile, ...]
    """In path order."""

    def file(self, path: str) -> TreeFile:
        """One of the files.

        Raises:
            EntryNotFound: there is none of this name.
        """
        found = next((file for file in self.files if file.path == path), None)
        if found is None:
            raise EntryNotFound(self.repo, self.commit, path)
        return found


def revision_of(session: Session, repo: str, revision: str) -> Revision:
    """What a branch, tag or commit names.

    Raises:
        RepositoryNotFound: no such repository.
        RevisionNotFound: no such revision.
    """
    commit = resolve(session, repo_named(session, repo), revision)
    return Revision(repo, commit.oid, tuple(repository.files(session, commit)))


def materialize(store: BlobStore, files: Iterable[TreeFile], into: Path) -> None:
    """Make `into` a directory with these files, each a read-only name of its blob.

    Doing it again ends in the same directory, also after a kill half-way or with other files: what is not named is
    removed. `into` must hold nothing else. From a remote store it can take long: hold no transaction meanwhile.

    Raises:
        BlobNotFound, BlobCorrupt: a blob is gone, or damaged.
    """
    wanted = {into / file.path: file.sha256 for file in files}
    for path, sha256 in wanted.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        store.place(sha256, path)
    for stale in [path for path in into.rglob("*") if path not in wanted and (path.is_symlink() or path.is_file())]:
        stale.unlink()
    flush_directory(into)


def config_of(store: BlobStore, revision: Revision) -> dict[str, Any]:
    """The parsed config.json of a revision.

    Raises:
        EntryNotFound: the revision has no config.json.
        UnreadableModel: it is no JSON object, or too large to be a config.
    """
    file = revision.file(CONFIG_FILE)
    if file.size > MAX_CONFIG_BYTES:
        raise UnreadableModel(revision.repo, revision.commit, CONFIG_FILE, f"larger than {MAX_CONFIG_BYTES:,} bytes")
    with store.open(file.sha256) as content:
        try:
            return parse_config(content.read())
        except ValueError as error:
            raise UnreadableModel(revision.repo, revision.commit, CONFIG_FILE, str(error)) from None


def parse_config(content: bytes) -> dict[str, Any]:
    """A config.json's content.

    Raises:
        ValueError: it is no JSON object.
    """
    try:
        config = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not valid JSON ({error})") from None
    if not isinstance(config, dict):
        raise ValueError("not a JSON object")
    return config


def tensor_headers_of(store: BlobStore, revision: Revision) -> Mapping[str, Header]:
    """The header of every safetensors file of the revision, by the file's name; no tensor is read.

    Raises:
        UnreadableModel: a file is no valid safetensors file.
    """
    headers = {}
    for file in revision.files:
        if file.path.endswith(".safetensors"):
            try:
                with store.open(file.sha256) as content:
                    headers[file.path] = parse_header(file.path, content)
            except CorruptSafetensors as error:
                raise UnreadableModel(revision.repo, revision.commit, file.path, error.reason) from None
    return headers


def tokenizer_path(store: BlobStore, revision: Revision) -> Path:
    """A local, read-only file with the revision's tokenizer.json (its own name is the blob's).

    Raises:
        EntryNotFound: the revision has no tokenizer.json.
    """
    return store.local_path(revision.file(TOKENIZER_FILE).sha256)
