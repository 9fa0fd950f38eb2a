"""What can be done with data sets, over the repository. Functions take the caller's session and never commit."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from sqlalchemy.orm import Session

from app.datasets import repository
from app.datasets.inspection import Contents, inspect
from app.db.models import DatasetRow
from app.errors import DatasetNotFound, InvalidRequest
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


def add(session: Session, *, name: str, blob: Blob, contents: Contents) -> tuple[DatasetRow, bool]:
    """The data set of these bytes and this name, and whether it is new."""
    return repository.add(session, name=name, sha256=blob.sha256, size=blob.size, contents=contents)


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
