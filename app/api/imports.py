"""`POST /v1/imports`: take a model directory of this machine into the hub."""

from pathlib import Path
from typing import Annotated

import structlog
from fastapi import APIRouter, Depends, Response
from pydantic import BaseModel, ConfigDict, Field

from app.api.deps import Submitter, hub_caller
from app.api.hub.routing import hub_context
from app.api.jobs import AUTH_ERRORS
from app.api.problems import documented
from app.errors import outages, references, requests
from app.hub.access import check_may_publish
from app.hub.context import HubContext
from app.hub.errors import BadName, DirectoryNotAllowed, ModelRefused, NoSafetensors, NotAllowed
from app.hub.importing import allowed_directory, import_directory
from app.hub.names import REPO_FORM, check_repo_name
from app.storage.blobs import SourceChanged

router = APIRouter(prefix="/v1", tags=["models"])

log = structlog.get_logger(__name__)


class ImportRequest(BaseModel):
    """What to import, and under which name."""

    model_config = ConfigDict(extra="forbid")

    path: str = Field(
        min_length=1,
        max_length=4096,
        description="Directory on the service's machine, as save_pretrained writes it, below STREAMLINE_MODEL_ROOTS.",
    )
    repo: str = Field(min_length=1, max_length=200, description=f"Repository to import into: {REPO_FORM}.")
    private: bool = Field(False, description="Whether the repository, if the import makes it, is private.")


class ImportAnswer(BaseModel):
    """What is in the hub now."""

    repo: str
    revision: str = Field(description="The commit: 40 hex digits; `main` points to it.")
    created: bool = Field(description="False where `main` already held the same content, and nothing was written.")
    files: int = Field(description="Number of files of the revision.")
    bytes: int = Field(description="Their sizes together.")
    skipped: list[str] = Field(description="Files left out: hidden ones, and weights in other forms than safetensors.")


@router.post(
    "/imports",
    status_code=201,
    responses={
        200: {"model": ImportAnswer, "description": "The same content was there already."},
        **documented(
            requests.MalformedBody,
            requests.BodyTooLarge,
            requests.UnsupportedMediaType,
            requests.UnknownField,
            requests.MissingField,
            requests.WrongType,
            requests.OutOfRange,
            references.BadRepoName,
            references.ModelNotAllowed,
            references.DirectoryNotAllowed,
            references.NoSafetensors,
            references.UnreadableModel,
            outages.StorageFull,
            *AUTH_ERRORS,
        ),
    },
)
def import_model(
    wanted: ImportRequest, response: Response, context: Annotated[HubContext, Depends(hub_context)], caller: Submitter
) -> ImportAnswer:
    """Check a model directory, copy its files into the store and publish them as `main` of the repository.

    Everything is looked at before anything is stored: config.json, the header of every safetensors file, every link.
    The answer comes when the import is done (a few seconds per gigabyte); importing the same content again writes
    nothing and answers 200.
    """
    try:
        check_repo_name(wanted.repo)
    except BadName as error:
        raise references.BadRepoName(str(error), pointer="/repo") from None
    with context.read_sessions() as session:
        try:
            check_may_publish(session, hub_caller(caller), wanted.repo)
        except NotAllowed as error:
            raise references.ModelNotAllowed(str(error), pointer="/repo") from None
    try:
        directory, root = allowed_directory(wanted.path, context.model_roots)
        with context.sessions.begin() as session:
            imported = import_directory(
                session,
                context.store,
                directory,
                wanted.repo,
                root=root,
                private=wanted.private,
                owner=caller.owner,
                author=caller.owner and caller.name,
            )
            check_may_publish(session, hub_caller(caller), wanted.repo)  # it may be somebody's by now
    except NotAllowed as error:
        raise references.ModelNotAllowed(str(error), pointer="/repo") from None
    except DirectoryNotAllowed as error:
        raise references.DirectoryNotAllowed(str(error), pointer="/path") from None
    except NoSafetensors as error:
        raise references.NoSafetensors(str(error), pointer="/path") from None
    except ModelRefused as error:
        raise references.UnreadableModel(str(error), pointer="/path") from None
    except SourceChanged as error:
        raise references.UnreadableModel(str(error), pointer="/path") from None
    except FileNotFoundError as error:
        raise references.UnreadableModel(
            f"{_named(error, wanted)} went away while the directory was read; wait until its writer has "
            "finished and send the request again.",
            pointer="/path",
        ) from None
    except PermissionError as error:
        raise references.UnreadableModel(
            f"{_named(error, wanted)} cannot be read by the service's user; give it permission.", pointer="/path"
        ) from None
    except OSError as error:
        log.warning("import_unreadable", path=wanted.path, error=str(error))
        raise references.UnreadableModel(
            f"{_named(error, wanted)} cannot be read: {error.strerror or 'input/output error'}. Look at the "
            "disk that it lies on, or copy the model elsewhere.",
            pointer="/path",
        ) from None
    if not imported.commit.new:
        response.status_code = 200
    return ImportAnswer(
        repo=imported.commit.repo,
        revision=imported.commit.oid,
        created=imported.commit.new,
        files=imported.files,
        bytes=imported.size,
        skipped=list(imported.skipped),
    )


def _named(error: OSError, wanted: ImportRequest) -> str:
    """The file that an error is about, by its name alone: a resolved path tells where this machine keeps its models."""
    return Path(error.filename).name if error.filename else wanted.path
