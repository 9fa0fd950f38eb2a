"""What can be done with data sets, over the repository. Functions take the caller's session and never commit."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from sqlalchemy.orm import Session

from app.core.tasks import names_of_same_task
from app.datasets import repository
from app.datasets.inspection import Contents, inspect
from app.db.models import DatasetRow
from app.errors.references import DatasetNameTaken
from app.errors.requests import InvalidRequest
from app.errors.resources import DatasetNotFound
from app.storage.blobs import Blob, BlobStore
from app.storage.staging import staged_file


@contextmanager
def staging(store: BlobStore, needed: int) -> Iterator[tuple[Path, BinaryIO]]:
    """A file beside the store for an upload of about `needed` bytes; gone when the block ends, or the process does.

    Raises:
        StorageFull: there is no room.
    """
    with staged_file(store.staging, needed=needed) as (path, file):
        yield path, file


def check(path: Path, filename: str) -> Contents:
    """Look through the uploaded file.

    Raises:
        BadDataset: it is none that a job could use.
    """
    return inspect(path, filename)


def add(session: Session, *, name: str, blob: Blob, contents: Contents, owner: str = "") -> tuple[DatasetRow, bool]:
    """The data set of these bytes and this name, and whether it is new; without an owner it is the operator's."""
    return repository.add(session, name=name, sha256=blob.sha256, size=blob.size, contents=contents, owner=owner)


def upload(
    session: Session, *, name: str, blob: Blob, contents: Contents, owner: str, any_name: bool
) -> tuple[DatasetRow, bool]:
    """The data set that a key uploads, and whether it is new.

    Most names only describe, and anybody may use them. By some a task finds its rows, of the newest upload: there only
    the owner of that one may upload another, so that what others are judged by is not replaced under their feet.

    Args:
        session: of the caller.
        name: as the key calls it.
        blob: its bytes.
        contents: what they are.
        owner: the key.
        any_name: whether it may replace other keys' rows.

    Raises:
        DatasetNameTaken: the name is another key's.
    """
    if not any_name and repository.get(session, repository.dataset_id(blob.sha256, name)) is None:
        names = names_of_same_task(name)
        counts = repository.newest(session, tuple(names)) if names else None
        if counts is not None and counts.owner != owner:
            raise DatasetNameTaken(
                f"Tasks find their rows by the name {name}, and those that count, {counts.id}, are not this key's. "
                "Upload the file under another name and give its id in evaluation.task_data, or use a key of scope "
                "admin.",
                pointer="/name",
            )
    return add(session, name=name, blob=blob, contents=contents, owner=owner)


def find(session: Session, dataset_id: str) -> DatasetRow:
    """The data set.

    Raises:
        DatasetNotFound: there is none of this id.
    """
    row = repository.get(session, dataset_id)
    if row is None:
        raise DatasetNotFound(
            f"There is no data set {dataset_id[:64]!r}; GET /v1/datasets lists those that are.", parameter="dataset_id"
        )
    return row


def page(session: Session, *, after: str | None, limit: int) -> Sequence[DatasetRow]:
    """Data sets in the order of their names, behind the one with the id `after`.

    Raises:
        InvalidRequest: there is no data set `after`.
    """
    if after is not None and repository.get(session, after) is None:
        raise InvalidRequest(
            "cursor is not one that this service gave out; send `next_cursor` of the page before, or leave it out.",
            parameter="cursor",
        )
    return repository.page(session, after=after, limit=limit)
