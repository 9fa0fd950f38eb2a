"""`/healthz` says that the process lives, `/readyz` that what it needs does too."""

from typing import Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from app.dispatch.queue import broker_reachable
from app.storage.blobs import BlobStore, StorageError

router = APIRouter(tags=["health"])

Condition = Literal["ok", "away"]


class Health(BaseModel):
    """The process answers."""

    status: Literal["ok"] = "ok"


class Readiness(BaseModel):
    """Each part that a job needs."""

    status: Condition
    database: Condition | Literal["behind"]
    """`behind`: it lacks a migration of this release; run `streamline migrate`."""
    broker: Condition
    storage: Condition


@router.get("/healthz")
async def healthz() -> Health:  # takes none of the threads that a hanging database may hold
    """Liveness: restart the process when this does not answer."""
    return Health()


@router.get("/readyz", responses={503: {"model": Readiness}})
def readyz(request: Request, response: Response) -> Readiness:
    """Readiness: 503 while a part is away, and which one."""
    database = _database(request.app.state.read_sessions)
    broker: Condition = "ok" if broker_reachable(request.app.state.celery) else "away"
    storage: Condition = "ok" if _store_answers(request.app.state.services.blobs) else "away"
    ready = database == broker == storage == "ok"
    response.status_code = 200 if ready else 503
    return Readiness(status="ok" if ready else "away", database=database, broker=broker, storage=storage)


def _database(sessions: sessionmaker[Session]) -> Condition | Literal["behind"]:
    from app.db.migrate import is_behind  # alembic is needed by nothing else that the API does

    try:
        with sessions() as session:
            return "behind" if is_behind(session) else "ok"
    except SQLAlchemyError:
        return "away"


def _store_answers(store: BlobStore) -> bool:
    try:
        store.check()
    except StorageError:
        return False
    return True
