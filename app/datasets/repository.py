"""All the SQL about data sets. Functions take the caller's session and never commit."""

import hashlib
from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from app.datasets.inspection import Contents
from app.db.models import DatasetRow
from app.storage.register import name_blobs

_ID_DIGITS = 24


def dataset_id(sha256: str, name: str) -> str:
    """The id of the data set of this content and name: the same upload gets the same id on every service."""
    return "ds-" + hashlib.sha256(f"{sha256}\0{name}".encode()).hexdigest()[:_ID_DIGITS]


def add(
    session: Session, *, name: str, sha256: str, size: int, contents: Contents, owner: str
) -> tuple[DatasetRow, bool]:
    """The data set of this content and name, and whether it is new; any number may add the same one at once.

    One that is there already keeps its owner.

    Raises:
        BlobCollected: its bytes were stored too long ago and have been collected since.
    """
    name_blobs(session, {sha256: size})
    insert = (postgresql if session.get_bind().dialect.name == "postgresql" else sqlite).insert
    new_id = dataset_id(sha256, name)
    added = session.scalar(
        insert(DatasetRow)
        .values(
            id=new_id,
            name=name,
            sha256=sha256,
            size=size,
            format=contents.format,
            columns=list(contents.columns),
            rows=contents.rows,
            owner=owner,
        )
        .on_conflict_do_nothing()
        .returning(DatasetRow.id)
    )
    row = session.get_one(DatasetRow, new_id, populate_existing=True)
    return row, added is not None


def get(session: Session, dataset: str) -> DatasetRow | None:
    """The data set of this id."""
    return session.get(DatasetRow, dataset)


def newest(session: Session, names: Sequence[str]) -> DatasetRow | None:
    """Return the newest data set that has one of these names."""
    query = select(DatasetRow).where(DatasetRow.name.in_(names)).order_by(DatasetRow.created_at.desc()).limit(1)
    return session.scalars(query).first()


def page(session: Session, *, after: str | None, limit: int) -> Sequence[DatasetRow]:
    """Data sets in the order of name and id, behind the one with the id `after`."""
    query = select(DatasetRow).order_by(DatasetRow.name, DatasetRow.id).limit(limit)
    last = session.get(DatasetRow, after) if after else None
    if last is not None:
        behind = (DatasetRow.name > last.name) | ((DatasetRow.name == last.name) & (DatasetRow.id > last.id))
        query = query.where(behind)
    return session.scalars(query).all()


def names(session: Session, *, limit: int = 1000) -> list[tuple[str, str]]:
    """Id and name of the newest data sets: what a wrong id is compared with."""
    query = select(DatasetRow.id, DatasetRow.name).order_by(DatasetRow.created_at.desc()).limit(limit)
    return [(row.id, row.name) for row in session.execute(query)]
