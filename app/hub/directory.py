"""All the SQL about repositories as such: names, owners, who may see them, tags. Never commits."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import ColumnElement, delete, exists, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import InstrumentedAttribute, Session

from app.db.clock import db_now
from app.db.models import ApiKeyRow, JobRepoRow, RepoGrantRow, RepoRow, RepoTagRow

Order = Literal["name", "created_at", "last_modified"]


@dataclass(frozen=True)
class Behind:
    """A place in an ordered list: behind the repository of this name, whose ordering value this is."""

    value: str | datetime
    name: str


@dataclass(frozen=True)
class NewRepo:
    """What a repository is made with; one that is there already keeps what it has."""

    private: bool = False
    owner: str = ""
    """Id of the API key that makes it; empty: nobody's."""
    gated: str | None = None
    upstream: str | None = None
    """Address of the hub that it is a copy of."""


def find_repo(session: Session, name: str) -> RepoRow | None:
    """The repository of this name, or None."""
    return session.scalar(select(RepoRow).where(RepoRow.name == name))


def find_for(session: Session, name: str, key_id: str) -> tuple[RepoRow | None, bool]:
    """The repository of this name, or None, and whether this key was granted access to it; always one query."""
    granted = exists().where(RepoGrantRow.repo_id == RepoRow.id, RepoGrantRow.key_id == key_id)
    row = session.execute(select(RepoRow, granted).where(RepoRow.name == name)).first()
    return (row[0], row[1]) if row else (None, False)


def lock_repo(session: Session, name: str) -> RepoRow | None:
    """The repository, locked until the transaction ends: two who publish to it take turns.

    SQLite has no row locks and needs none, its transactions begin IMMEDIATE.
    """
    return session.scalar(
        select(RepoRow).where(RepoRow.name == name).with_for_update().execution_options(populate_existing=True)
    )


def create_repo(session: Session, name: str, new: NewRepo) -> RepoRow | None:
    """Make the repository; None where the name is taken."""
    row = RepoRow(name=name, **asdict(new))
    try:
        with session.begin_nested():
            session.add(row)
    except IntegrityError:
        return None
    return row


def lock_or_create_repo(session: Session, name: str, new: NewRepo) -> RepoRow:
    """The repository, locked; made if it was missing, else left as it is."""
    if row := lock_repo(session, name):
        return row
    # None: somebody was quicker, and has committed by now.
    create_repo(session, name, new)
    row = lock_repo(session, name)
    assert row is not None
    return row


def rename_repo(session: Session, repo: RepoRow, name: str) -> bool:
    """Give the repository another name; False where that one is taken."""
    former = repo.name
    try:
        with session.begin_nested():
            session.execute(update(RepoRow).where(RepoRow.id == repo.id).values(name=name))
    except IntegrityError:
        return False
    _free_name(session, former, private=repo.private)
    return True


def delete_repo(session: Session, repo: RepoRow) -> None:
    """Forget the repository with all its commits; blobs that nothing else names are collected later."""
    _free_name(session, repo.name, private=repo.private)
    session.execute(delete(RepoRow).where(RepoRow.id == repo.id))


def _free_name(session: Session, name: str, *, private: bool) -> None:
    """Jobs that name a private repository stay private, whoever takes its name now."""
    if private:
        session.execute(update(JobRepoRow).where(JobRepoRow.name == name).values(private=True))


def configure(session: Session, repo: RepoRow, changes: dict[str, Any]) -> None:
    """Change `private` or `gated`."""
    session.execute(update(RepoRow).where(RepoRow.id == repo.id).values(**changes))


def main_moved(session: Session, repo: RepoRow, tags: Collection[str]) -> None:
    """Note that `main` points to other content now, and by what the model is found."""
    session.execute(update(RepoRow).where(RepoRow.id == repo.id).values(last_modified=db_now()))
    session.execute(delete(RepoTagRow).where(RepoTagRow.repo_id == repo.id))
    if tags:
        session.execute(insert(RepoTagRow), [{"repo_id": repo.id, "tag": tag} for tag in dict.fromkeys(tags)])


def page_of_repos(
    session: Session,
    *,
    visible_to: str | None,
    search: str | None = None,
    author: str | None = None,
    tags: Sequence[str] = (),
    gated: bool | None = None,
    order: Order = "name",
    behind: Behind | None = None,
    limit: int,
) -> Sequence[RepoRow]:
    """Repositories that a key may know of, by name, or the newest first.

    Args:
        session: a read session.
        visible_to: the key's id; None shows all.
        search: part of a name.
        author: a whole namespace.
        tags: all of which the model has.
        gated: only gated ones, or only the others.
        order: what they are ordered by.
        behind: where the page begins.
        limit: how many at most.
    """
    if any("\0" in text for text in (search or "", author or "", *tags)):  # in no name, and PostgreSQL takes none
        return []
    query = select(RepoRow).limit(limit)
    if search:
        query = query.where(RepoRow.name.icontains(search, autoescape=True))
    if author:
        query = query.where(RepoRow.name.startswith(f"{author}/", autoescape=True))
    if visible_to is not None:
        query = query.where(_known_to(visible_to))
    if gated is not None:
        query = query.where(RepoRow.gated.is_not(None) if gated else RepoRow.gated.is_(None))
    for tag in tags:
        query = query.where(RepoRow.id.in_(select(RepoTagRow.repo_id).where(RepoTagRow.tag == tag)))
    if order == "name":
        if behind:
            query = query.where(RepoRow.name > behind.value)
        return session.scalars(query.order_by(RepoRow.name)).all()
    column: InstrumentedAttribute[datetime] = getattr(RepoRow, order)
    if behind:
        query = query.where((column < behind.value) | ((column == behind.value) & (RepoRow.name > behind.name)))
    return session.scalars(query.order_by(column.desc(), RepoRow.name)).all()


def _known_to(key_id: str) -> ColumnElement[bool]:
    granted = select(RepoGrantRow.repo_id).where(RepoGrantRow.key_id == key_id)
    return RepoRow.private.is_(False) | (RepoRow.owner == key_id) | RepoRow.id.in_(granted)


def tags_of(session: Session, repo_ids: Collection[int]) -> dict[int, list[str]]:
    """The tags of these repositories' `main`."""
    found: dict[int, list[str]] = {repo_id: [] for repo_id in repo_ids}
    rows = session.execute(select(RepoTagRow.repo_id, RepoTagRow.tag).where(RepoTagRow.repo_id.in_(repo_ids)))
    for repo_id, tag in rows:
        found[repo_id].append(tag)
    return {repo_id: sorted(tags) for repo_id, tags in found.items()}


def keys_called(session: Session, name: str) -> Sequence[ApiKeyRow]:
    """Keys of this id, or else of this name, that are not revoked."""
    valid = select(ApiKeyRow).where(ApiKeyRow.revoked_at.is_(None))
    by_id = session.scalars(valid.where(ApiKeyRow.id == name)).all()
    return by_id or session.scalars(valid.where(ApiKeyRow.name == name)).all()


def grant(session: Session, repo: RepoRow, keys: Iterable[ApiKeyRow]) -> None:
    """Let these keys read the private or gated repository (and write, where their scope allows it)."""
    for key in keys:
        session.merge(RepoGrantRow(repo_id=repo.id, key_id=key.id))
    session.flush()


def withdraw(session: Session, repo: RepoRow, keys: Iterable[ApiKeyRow]) -> None:
    """Take the grant back."""
    session.execute(
        delete(RepoGrantRow).where(RepoGrantRow.repo_id == repo.id, RepoGrantRow.key_id.in_([key.id for key in keys]))
    )


def granted_keys(session: Session, repo: RepoRow) -> Sequence[tuple[ApiKeyRow, datetime]]:
    """Who was granted access, and when."""
    rows = session.execute(
        select(ApiKeyRow, RepoGrantRow.created_at)
        .join(RepoGrantRow, RepoGrantRow.key_id == ApiKeyRow.id)
        .where(RepoGrantRow.repo_id == repo.id)
        .order_by(RepoGrantRow.created_at)
    )
    return [(key, moment) for key, moment in rows]
