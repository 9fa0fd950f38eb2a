"""Plans: what a job would do, without making one."""

from fastapi import APIRouter

from app.api.deps import Parts, Reader, hub_caller
from app.api.jobs import AUTH_ERRORS, REQUEST_ERRORS
from app.api.problems import documented
from app.errors import references
from app.jobs.spec.request import PlanRequest
from app.jobs.views import PlanAnswer

router = APIRouter(prefix="/v1/plans", tags=["plans"])


@router.post("", responses=documented(*REQUEST_ERRORS, references.PlanNeedsWeights, *AUTH_ERRORS))
def make_plan(body: PlanRequest, parts: Parts, caller: Reader) -> PlanAnswer:
    """Say what a job of this body would remove, add and need; it must pass the same checks.

    With a config given inline as `model.config`, parameters are counted by the family's formula and no weights are
    looked at.
    """
    return PlanAnswer.model_validate(parts.door.plan(body, hub_caller(caller)))
