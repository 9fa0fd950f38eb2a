"""Data sets: upload calibration and evaluation text, list it."""

from datetime import datetime
from typing import Annotated, Any, Literal, Self

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, Field
from starlette.concurrency import run_in_threadpool

from app.api.deps import Caller, Parts, Reader, Services, Submitter
from app.api.jobs import AUTH_ERRORS
from app.api.problems import documented
from app.auth.scopes import Scope
from app.datasets import service
from app.datasets.uploads import UploadForm
from app.db.models import DatasetRow
from app.errors import outages, references, requests, resources

router = APIRouter(prefix="/v1/datasets", tags=["datasets"])


class Dataset(BaseModel):
    """Calibration or evaluation text."""

    id: str = Field(description="What a job names it by.")
    name: str
    sha256: str
    size: int = Field(description="Bytes.")
    format: Literal["jsonl", "text"]
    columns: list[str] = Field(description="Fields that hold text in every row; empty for plain text.")
    rows: int = Field(description="Rows of JSONL, lines of plain text.")
    created_at: datetime

    @classmethod
    def of(cls, row: DatasetRow) -> Self:
        """The view of a row."""
        return cls.model_validate({name: getattr(row, name) for name in cls.model_fields})


class DatasetPage(BaseModel):
    """Data sets in the order of their names."""

    items: list[Dataset]
    next_cursor: str | None = Field(description="Send it as `cursor` for the next page; null on the last one.")


_FORM: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "additionalProperties": False,
                    "properties": {
                        "file": {
                            "type": "string",
                            "format": "binary",
                            "description": "JSONL (an object per line) or plain text, in UTF-8.",
                        },
                        "name": {
                            "type": "string",
                            "minLength": 1,
                            "maxLength": 200,
                            "description": "What to call it; default: the file's name.",
                        },
                    },
                }
            }
        },
    }
}


@router.post(
    "",
    status_code=201,
    response_model=Dataset,
    openapi_extra=_FORM,
    responses={
        200: {"description": "The same content has been uploaded under this name before.", "model": Dataset},
        **documented(
            requests.MalformedBody,
            requests.BodyTooLarge,
            requests.UnsupportedMediaType,
            references.BadDataset,
            requests.MissingField,
            requests.UnknownField,
            requests.OutOfRange,
            references.DatasetNameTaken,
            outages.StorageFull,
            *AUTH_ERRORS,
        ),
    },
)
async def upload_dataset(request: Request, response: Response, parts: Parts, caller: Submitter) -> Dataset:
    """Upload a data set as a form with the field `file` (and `name`). It is shown when all of it has been checked.

    The same content under the same name is the same data set, however often it is uploaded. A name by which a task
    finds its rows (`piqa.jsonl`) is replaced by its owner or an admin alone.
    """
    with service.staging(parts.blobs, _declared_bytes(request)) as (path, sink):
        form = UploadForm(request.headers.get("content-type", ""), sink, max_bytes=parts.settings.max_dataset_bytes)
        name = await form.read(request.stream())
        row, new = await run_in_threadpool(_store, parts, caller, sink, path, name, form.filename)
    response.status_code = 201 if new else 200
    response.headers["Location"] = f"/v1/datasets/{row.id}"
    return Dataset.of(row)


def _declared_bytes(request: Request) -> int:
    length = request.headers.get("content-length", "0")
    return int(length) if length.isdigit() else 0


def _store(parts: Services, caller: Caller, sink: Any, path: Any, name: str, filename: str) -> tuple[DatasetRow, bool]:
    sink.flush()
    checked = service.check(path, filename or name)
    blob = parts.blobs.put_file(path)
    with parts.sessions.begin() as session:
        admin = caller.scope is Scope.ADMIN
        return service.upload(session, name=name, blob=blob, contents=checked, owner=caller.owner, any_name=admin)


@router.get("", responses=documented(requests.OutOfRange, requests.WrongType, *AUTH_ERRORS))
def list_datasets(
    parts: Parts,
    _caller: Reader,
    cursor: Annotated[str | None, Query(description="`next_cursor` of the page before.", max_length=64)] = None,
    limit: Annotated[int, Query(ge=1, le=1000, description="Data sets per page.")] = 100,
) -> DatasetPage:
    """List the data sets in the order of their names."""
    with parts.read_sessions() as session:
        rows = service.page(session, after=cursor, limit=limit + 1)
    more = len(rows) > limit
    return DatasetPage(
        items=[Dataset.of(row) for row in rows[:limit]], next_cursor=rows[limit - 1].id if more else None
    )


@router.get("/{dataset_id}", responses=documented(resources.DatasetNotFound, *AUTH_ERRORS))
def get_dataset(dataset_id: str, parts: Parts, _caller: Reader) -> Dataset:
    """One data set."""
    with parts.read_sessions() as session:
        return Dataset.of(service.find(session, dataset_id))
