"""What a request is answered whose database fails it: it is away for a moment, or older than this release."""

from typing import Any, Final

import structlog
from sqlalchemy.exc import OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.orm import Session, sessionmaker
from starlette.concurrency import run_in_threadpool

from app.db.faults import lacks_what_is_named
from app.errors import ServiceError
from app.errors.outages import DatabaseBehind, Unavailable

log = structlog.get_logger(__name__)

RETRY_AFTER_SECONDS: Final = 2
_HEADERS: Final = {"Retry-After": str(RETRY_AFTER_SECONDS)}


async def problem_of(error: Exception, sessions: sessionmaker[Session] | None) -> ServiceError | None:
    """Return what to answer, and tell the operator what the database said; None: the fault is the service's own.

    A table or a column that is missing is the operator's to mend only while a migration has not run. In a database
    that has them all it is a mistake of ours, and is to be seen as one.

    Args:
        error: what a statement was refused with, or a connection that could not be had.
        sessions: to ask which migrations have run.
    """
    if lacks_what_is_named(error):
        if sessions is None or not await run_in_threadpool(_is_behind, sessions):
            return None
        # No Retry-After: it takes a person, and who only wants an answer is not to wait for one.
        found: ServiceError = DatabaseBehind(
            "The database lacks what this release has added to it. Whoever runs the service brings it up to date with "
            "`streamline migrate`; then send the request again."
        )
    elif isinstance(error, OperationalError | PoolTimeoutError):
        found = Unavailable("The database does not answer; send the request again in a moment.", headers=_HEADERS)
    else:
        return None
    event = "database_behind" if isinstance(found, DatabaseBehind) else "database_unavailable"
    log.warning(event, error=type(error).__name__, detail=str(error.__cause__ or error))
    return found


def _is_behind(sessions: sessionmaker[Session]) -> bool:
    from app.db.migrate import is_behind  # alembic is needed by nothing else that the API does

    try:
        with sessions() as session:
            return is_behind(session)
    except SQLAlchemyError:
        return False


def read_sessions_of(app: Any) -> sessionmaker[Session] | None:
    """The sessions of an application that has some."""
    found: sessionmaker[Session] | None = getattr(app.state, "read_sessions", None)
    return found
