"""The models of a request, as the door sees them: is there such a repository, may it be read, and can it be cut?"""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from app.core.architectures import (
    ArchitectureError,
    CannotBeCut,
    layer_count,
    max_positions,
    refuse_uncuttable,
)
from app.core.layer_fields import cut_layer_fields
from app.core.refusals import adapter_refusal
from app.core.safetensors_file import Header
from app.core.selection import ParameterCounts
from app.errors.outages import UpstreamTimeout, UpstreamUnavailable
from app.errors.references import (
    BadRepoName,
    ModelNotAllowed,
    ModelNotFetched,
    NoSafetensors,
    UnknownModel,
    UnknownRevision,
    UnreadableModel,
)
from app.hub import catalog
from app.hub import errors as hub_errors
from app.hub.catalog import Revision
from app.hub.names import check_repo_name
from app.jobs.facts import ModelFacts, RivalFacts, check_sizes, model_problem
from app.storage.blobs import BlobCorrupt, BlobNotFound, BlobStore

_DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}


@contextmanager
def named_by(pointer: str, repo: str, *, revision_pointer: str | None = None) -> Iterator[None]:
    """Turn the hub's errors about a model into the request's, under the pointer of the field that names it."""
    try:
        check_repo_name(repo)
        yield
    except hub_errors.BadName as error:
        raise BadRepoName(str(error), pointer=pointer) from None
    except hub_errors.RepositoryNotFound:
        raise UnknownModel(_how_to_import(repo), pointer=pointer) from None
    except hub_errors.GatedRepository as error:
        raise ModelNotAllowed(str(error), pointer=pointer) from None
    except hub_errors.RevisionNotFound as error:
        raise UnknownRevision(str(error), pointer=revision_pointer or pointer) from None
    except (hub_errors.UnreadableModel, hub_errors.EntryNotFound, BlobNotFound, BlobCorrupt) as error:
        raise UnreadableModel(f"{error} Import it again.", pointer=pointer) from None
    except hub_errors.PickledWeights as error:
        raise NoSafetensors(str(error), pointer=pointer) from None
    except hub_errors.UpstreamRefused as error:
        raise ModelNotFetched(str(error), pointer=pointer) from None
    except hub_errors.UpstreamTimeout as error:
        raise UpstreamTimeout(str(error), pointer=pointer) from None
    except hub_errors.UpstreamError as error:
        raise UpstreamUnavailable(str(error), pointer=pointer) from None


def _how_to_import(repo: str) -> str:
    return (
        f"There is no model {repo!r} in this service's hub; GET /api/models lists those that are. Import it first: "
        f"`streamline import DIR {repo}`, or POST /v1/imports."
    )


def model_facts(store: BlobStore, model: Revision) -> ModelFacts:
    """What the store knows about the dense model.

    Raises:
        InvalidRequest: it cannot be compressed.
    """
    config = catalog.config_of(store, model)
    headers = catalog.tensor_headers_of(store, model)
    if not headers:
        raise NoSafetensors(
            f"{model.repo} at {model.commit[:12]} has no safetensors weights. Convert it: load it with "
            "transformers, save it with save_pretrained(..., safe_serialization=True), and import that directory.",
            pointer="/model/repo",
        )
    try:
        _refuse_adapter(model)
        refuse_uncuttable(config)
        check_sizes(config)
        cut_layer_fields(config, range(layer_count(config)))  # lists that are not lists of its layers
        counts = ParameterCounts.from_tensors(config, _sizes(headers))
        if 0 in counts.per_layer:
            raise ArchitectureError(f"the weights hold no tensor of decoder layer {counts.per_layer.index(0)}")
    except ArchitectureError as error:
        raise model_problem(error, "/model/repo") from None
    return ModelFacts(config, counts, repo=model.repo, commit=model.commit, dtype=_dtype(headers))


def rival_facts(store: BlobStore, rival: Revision, pointer: str) -> RivalFacts:
    """What the store knows about a checkpoint that is to be timed.

    Raises:
        InvalidRequest: it cannot be, under `pointer`.
    """
    with named_by(pointer, rival.repo):
        config = catalog.config_of(store, rival)
        if not catalog.tensor_headers_of(store, rival):
            raise NoSafetensors(
                f"{rival.repo} at {rival.commit[:12]} has no safetensors weights to time.", pointer=pointer
            )
    try:
        _refuse_adapter(rival)
        return RivalFacts(rival.repo, rival.commit, max_positions(config), own_code="auto_map" in config)
    except ArchitectureError as error:
        raise model_problem(error, pointer) from None


def _refuse_adapter(model: Revision) -> None:
    if reason := adapter_refusal([file.path for file in model.files]):
        raise CannotBeCut(reason)


def _sizes(headers: Mapping[str, Header]) -> dict[str, int]:
    """Elements of every tensor of the checkpoint."""
    return {name: math.prod(entry.shape) for header in headers.values() for name, entry in header.tensors.items()}


def _dtype(headers: Mapping[str, Header]) -> str | None:
    """The one dtype of all weights, under its name in a request; None where they differ."""
    found = {entry.dtype for header in headers.values() for entry in header.tensors.values()}
    return _DTYPES.get(found.pop()) if len(found) == 1 else None
