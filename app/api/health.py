"""`/healthz` says that the process lives, `/readyz` that what it needs does too."""

from typing import Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel
from sqlalchemy import text
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
    database: Condition
    broker: Condition
    storage: Condition


@router.get("/healthz")
async def healthz() -> Health:  # takes none of the threads that a hanging database may hold
    """Liveness: restart the process when this does not answer."""
    return Health()


@router.get("/readyz", responses={503: {"model": Readiness}})
def readyz(request: Request, response: Response) -> Readiness:
    """Readiness: 503 while a part is away, and which one."""
    parts: dict[str, Condition] = {
        "database": "ok" if _database_answers(request.app.state.read_sessions) else "away",
        "broker": "ok" if broker_reachable(request.app.state.celery) else "away",
        "storage": "ok" if _store_answers(request.app.state.services.blobs) else "away",
    }
    ready = all(condition == "ok" for condition in parts.values())
    response.status_code = 200 if ready else 503
    return Readiness(status="ok" if ready else "away", **parts)


def _database_answers(sessions: sessionmaker[Session]) -> bool:
    try:
        with sessions() as session:
            session.execute(text("SELECT 1"))
    except SQLAlchemyError:
        return False
    return True


def _store_answers(store: BlobStore) -> bool:
    try:
        store.check()
    except StorageError:
        return False
    return True
