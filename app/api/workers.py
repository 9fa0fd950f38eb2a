"""Workers: how many there are, and how much memory they have."""

from fastapi import APIRouter
from pydantic import BaseModel, Field

from app.api.deps import Parts, Reader
from app.api.jobs import AUTH_ERRORS
from app.api.problems import documented
from app.jobs import workers

router = APIRouter(prefix="/v1/workers", tags=["workers"])


class WorkerGroup(BaseModel):
    """Workers of the same memory."""

    memory_bytes: int | None = Field(
        description="GPU memory that they take jobs for (`required_memory_bytes` of a job); null: they take every job."
    )
    count: int


class WorkerList(BaseModel):
    """The workers that have been seen in the last minute, the largest first."""

    items: list[WorkerGroup]


@router.get("", responses=documented(*AUTH_ERRORS))
def list_workers(parts: Parts, caller: Reader) -> WorkerList:
    """List the workers by their memory: a queued job that needs more than all of them have waits for a larger one."""
    with parts.read_sessions() as session:
        found = workers.there(session)
    return WorkerList(items=[WorkerGroup(memory_bytes=each.memory_bytes, count=each.count) for each in found])
