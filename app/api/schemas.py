"""The published JSON Schemas, at addresses that stay."""

from typing import Annotated

from fastapi import APIRouter, Path, Response

from app.api.problems import documented
from app.errors import resources
from app.report.versions import schema_names, schema_text

router = APIRouter(prefix="/v1/schemas", tags=["jobs"])


@router.get(
    "/{name}",
    response_class=Response,
    responses={
        200: {"content": {"application/schema+json": {"schema": {"type": "object"}}}},
        **documented(resources.FileNotFound),
    },
)
def get_schema(name: Annotated[str, Path(description="`report-1.json`: the form of a job's report.")]) -> Response:
    """The JSON Schema of what the service writes; a published one does not change in meaning."""
    if name not in schema_names():
        raise resources.FileNotFound(
            f"There is no schema {name[:200]!r}; there are: {', '.join(schema_names())}.", parameter="name"
        )
    return Response(schema_text(name), media_type="application/schema+json", headers={"Cache-Control": "max-age=3600"})
