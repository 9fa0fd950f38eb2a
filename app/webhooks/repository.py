"""All the SQL about endpoints. Functions take the caller's session and never commit."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from sqlalchemy import ColumnElement, and_, delete, func, or_, select, true, tuple_, update
from sqlalchemy.orm import Session

from app.auth import keys
from app.db.clock import db_now
from app.db.cursors import Position
from app.db.models import JobRow, WebhookRow
from app.hub.access import Caller
from app.jobs.access import visible_to
from app.jobs.states import FINAL

OWN = "own"
VISIBLE = "visible"
GONE: Final = "gone"
FAILING: Final = "failing"


class Muted(StrEnum):
    """Why an endpoint is told nothing any more, although nobody has disabled it."""

    KEYLESS = "keyless"
    """It was registered before there were keys, and there are some now."""
    KEY_ENDED = "key_ended"
    """Its key was revoked or has expired."""


def insert(session: Session, row: WebhookRow) -> None:
    """Add a new endpoint."""
    session.add(row)
    session.flush()
    session.refresh(row)


def get(session: Session, webhook_id: str, who: Caller | None = None) -> WebhookRow | None:
    """The endpoint as it stands, or None: there is none, or it is not one of `who`'s."""
    query = select(WebhookRow).where(WebhookRow.id == webhook_id, true() if who is None else _of(who))
    return session.scalar(query.execution_options(populate_existing=True))


def page(
    session: Session, who: Caller, *, job_id: str | None, before: Position | None, limit: int
) -> Sequence[WebhookRow]:
    """The caller's endpoints, newest first, that are older than `before`; with `job_id`, those of this job alone."""
    query = select(WebhookRow).where(_of(who)).order_by(WebhookRow.created_at.desc(), WebhookRow.id.desc()).limit(limit)
    if job_id is not None:
        query = query.where(WebhookRow.job_id == job_id)
    if before is not None:
        query = query.where(tuple_(WebhookRow.created_at, WebhookRow.id) < tuple_(*before))
    return session.scalars(query).all()


def count(session: Session, owner: str, job_id: str | None) -> int:
    """How many endpoints this key has: for this job, or (None) those that are for no job in particular."""
    same_job = WebhookRow.job_id.is_(None) if job_id is None else WebhookRow.job_id == job_id
    return session.scalar(select(func.count()).where(WebhookRow.owner == owner, same_job)) or 0


def remove(session: Session, webhook_id: str, who: Caller) -> bool:
    """Forget the endpoint and what was to be sent to it; False when `who` has none of this id."""
    gone = session.scalar(delete(WebhookRow).where(WebhookRow.id == webhook_id, _of(who)).returning(WebhookRow.id))
    return gone is not None


def enable(session: Session, webhook_id: str, who: Caller) -> bool:
    """Tell the endpoint what happens from now on; False when `who` has none of this id."""
    values = {"disabled_at": None, "disabled_reason": None, "failing_since": None}
    return _change(session, values, WebhookRow.id == webhook_id, _of(who))


def disable(session: Session, webhook_id: str, reason: str, *, failing_seconds: float | None = None) -> bool:
    """Tell the endpoint nothing more; with `failing_seconds`, only if it has failed for so long.

    Returns:
        False when nothing has changed: it is disabled already, or not there any more, or has not failed for so long.
    """
    where = [WebhookRow.id == webhook_id, WebhookRow.disabled_at.is_(None)]
    if failing_seconds is not None:
        where.append(WebhookRow.failing_since <= db_now(-failing_seconds))
    return _change(session, {"disabled_at": db_now(), "disabled_reason": reason}, *where)


def attempt_failed(session: Session, webhook_id: str, moment: datetime) -> None:
    """Note since when the endpoint takes nothing."""
    _change(session, {"failing_since": moment}, WebhookRow.id == webhook_id, WebhookRow.failing_since.is_(None))


def attempt_succeeded(session: Session, webhook_id: str) -> None:
    """Note that the endpoint takes messages."""
    _change(session, {"failing_since": None}, WebhookRow.id == webhook_id, WebhookRow.failing_since.is_not(None))


def rotate(session: Session, webhook_id: str, who: Caller, *, sealed: str, old_seconds: float) -> bool:
    """Give the endpoint another secret; the one that it had signs too for so long, and none from before that.

    Returns:
        False when `who` has no endpoint of this id.
    """
    values = {"secret": sealed, "old_secret": WebhookRow.secret, "old_secret_until": db_now(old_seconds)}
    return _change(session, values, WebhookRow.id == webhook_id, _of(who))


def forget_old_secrets(session: Session, *, limit: int) -> int:
    """Remove secrets that sign nothing any more, at most `limit` of them; how many."""
    old = select(WebhookRow.id).where(WebhookRow.old_secret_until <= db_now()).limit(limit)
    changed = session.scalars(
        update(WebhookRow)
        .where(WebhookRow.id.in_(old.with_for_update(skip_locked=True)))  # other replicas sweep too
        .values(old_secret=None, old_secret_until=None)
        .returning(WebhookRow.id)
        .execution_options(synchronize_session=False)
    )
    return len(changed.all())


def _change(session: Session, values: dict[str, Any], *where: ColumnElement[bool]) -> bool:
    """Update an endpoint; whether there was one like that."""
    changed = session.scalar(
        update(WebhookRow)
        .where(*where)
        .values(values)
        .returning(WebhookRow.id)
        .execution_options(synchronize_session=False)
    )
    return changed is not None


def _of(who: Caller) -> ColumnElement[bool]:
    return true() if who.sees_all else WebhookRow.owner == who.key


# --- who hears of which job ------------------------------------------------------------------------------------------


def listeners(session: Session, job_id: str) -> Sequence[WebhookRow]:
    """The endpoints that want to hear of the job, whether or not their owners may; they stay until the commit."""
    wanted = or_(
        WebhookRow.job_id == job_id,
        and_(WebhookRow.job_id.is_(None), or_(WebhookRow.jobs == VISIBLE, WebhookRow.owner == JobRow.owner)),
    )
    return session.scalars(
        select(WebhookRow)
        .join(JobRow, JobRow.id == job_id)
        .where(WebhookRow.disabled_at.is_(None), wanted)
        # Whoever removes one waits, or has done it: a job's end must not fail on a row that goes meanwhile.
        .with_for_update(read=True, key_share=True, of=WebhookRow)
    ).all()


def job_heard_of(session: Session, owner: str, job_id: str) -> JobRow | None:
    """The job as it stands, if the owner of an endpoint may know of it now; None else."""
    who = _caller(session, owner)
    if who is None:
        return None
    query = select(JobRow).where(JobRow.id == job_id, visible_to(who))
    return session.scalar(query.execution_options(populate_existing=True))


def _caller(session: Session, owner: str) -> Caller | None:
    """The owner of an endpoint as one who asks; None where nobody could ask any more in that name.

    What was registered before the first key was made was anybody's on this machine: with the first key it is nobody's.
    """
    if not owner:
        return None if keys.exist(session) else Caller()
    scope = keys.valid_scope_of(session, owner)
    return None if scope is None else Caller(has_token=True, key=owner, scope=scope)


def muted(session: Session, owners: Collection[str]) -> Mapping[str, Muted]:
    """Those of these owners of endpoints in whose name nobody is told anything now, and why."""
    named = {owner for owner in owners if owner}
    ended = named - keys.valid_among(session, named) if named else set()
    found = dict.fromkeys(ended, Muted.KEY_ENDED)
    return found | {"": Muted.KEYLESS} if "" in owners and keys.exist(session) else found


def count_keyless(session: Session) -> int:
    """How many endpoints that were registered without a key would still be told something, were there no keys."""
    to_come = or_(WebhookRow.job_id.is_(None), JobRow.state.not_in(FINAL))
    query = select(func.count(WebhookRow.id)).outerjoin(JobRow, JobRow.id == WebhookRow.job_id)
    return session.scalar(query.where(WebhookRow.owner == "", WebhookRow.disabled_at.is_(None), to_come)) or 0
