"""What is checked at the door: a job that is refused here never costs a place in the queue.

Four steps: have what the request names here, copied from the upstream hub if need be; gather its rows in one short read
transaction; read what they point to from the store, with no connection held; resolve the request against all that.
"""

import difflib
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session, sessionmaker

from app.core import defaults
from app.core.architectures import (
    ArchitectureError,
    CannotBeCut,
    Config,
    layer_count,
    max_positions,
    refuse_uncuttable,
)
from app.core.device_memory import LARGEST_WORKER_MEMORY, class_floor
from app.core.layer_fields import cut_layer_fields
from app.core.plan import Plan
from app.core.refusals import adapter_refusal
from app.core.safetensors_file import Header
from app.core.selection import ParameterCounts
from app.datasets import repository as datasets
from app.datasets.inspection import Format
from app.datasets.tokens import UnreadableTokenizer, count_tokens
from app.errors import (
    BadRepoName,
    ConflictingFields,
    InvalidRequest,
    ModelNotAllowed,
    ModelNotFetched,
    NoSafetensors,
    NotAvailable,
    TextTooShort,
    UnknownColumn,
    UnknownDataset,
    UnknownModel,
    UnknownRevision,
    UnreadableModel,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from app.hub import catalog, directory
from app.hub import errors as hub_errors
from app.hub.access import Caller, check_as_closed, check_may_publish, readable
from app.hub.catalog import Revision
from app.hub.names import check_repo_name
from app.hub.revisions import DEFAULT_BRANCH
from app.hub.upstream.mirror import Mirror
from app.jobs import resolution
from app.jobs.memory_need import required_memory
from app.jobs.resolution import ModelFacts, RivalFacts
from app.jobs.spec import JobRequest, PlanRequest
from app.jobs.task_door import MirrorCopy, TaskFacts, check_tasks, pin_tasks, tasks_of
from app.storage.blobs import BlobCorrupt, BlobNotFound, BlobStore

_DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
_SUGGESTIONS = 3


@dataclass(frozen=True)
class TextFacts:
    """A data set that the request names."""

    pointer: str
    name: str
    format: Format
    sha256: str
    sequences: int
    """Sequences that it must make."""


@dataclass(frozen=True)
class Facts:
    """Everything that the database and the store know about what a request names."""

    model: ModelFacts
    texts: tuple[TextFacts, ...]
    tokenizer: Path | None
    """None where the model has no tokenizer.json; the engine then finds out by itself."""
    rivals: tuple[RivalFacts, ...] = ()
    tasks: tuple[TaskFacts, ...] = ()


@dataclass(frozen=True)
class Admitted:
    """A job that may be queued: its specification, and what has to be in the database with it."""

    spec: dict[str, Any]
    copies: Sequence[MirrorCopy]
    required_memory_bytes: int
    """Of the GPUs that may carry it out."""


@dataclass(frozen=True)
class _Rows:
    """What a request names, as the database knows it."""

    model: Revision
    rivals: tuple[Revision, ...]
    texts: tuple[TextFacts, ...]
    tasks: tuple[TaskFacts, ...]


class Door:
    """Refuses what cannot work, and resolves what can."""

    def __init__(
        self,
        read_sessions: sessionmaker[Session],
        store: BlobStore,
        *,
        mirror: Mirror | None = None,
        vllm: bool | None = None,
        task_data: Path | None = None,
        largest_worker_memory: int = LARGEST_WORKER_MEMORY,
    ) -> None:
        """Judge by these rows and bytes.

        Args:
            read_sessions: never wait for SQLite's one writer.
            store: where files of models and data sets lie.
            mirror: copies models that are not here from an upstream hub.
            vllm: whether the workers have vLLM; None where nobody here can know.
            task_data: directory with the files of evaluation tasks.
            largest_worker_memory: GPU memory of the largest worker, in bytes.
        """
        self._sessions = read_sessions
        self._store = store
        self._mirror = mirror
        self._vllm = vllm
        self._task_data = task_data
        self._largest_worker_memory = class_floor(largest_worker_memory)

    def admit(self, request: JobRequest, who: Caller) -> Admitted:
        """The resolved specification of a job that this caller may have queued, its data pinned.

        Raises:
            InvalidRequest: what is wrong, where, and what to do.
        """
        facts = self._facts(request, who, request.model.repo, request.model.revision)
        spec = self._resolve(request, facts)
        self._check_output(spec["output"]["repo"], request.model.repo, who)
        spec["evaluation"]["task_data"], copies = pin_tasks(facts.tasks, self._store)
        need = self._required_memory(facts.model, spec, resolution.plan(request, facts.model, spec))
        return Admitted(spec, copies, need)

    def plan(self, request: PlanRequest, who: Caller) -> dict[str, Any]:
        """The answer to a dry run, after the same checks that a job would have to pass.

        Raises:
            InvalidRequest: as admit; PlanNeedsWeights for an inline config of a family without a formula.
        """
        if request.model.config is not None:
            with self._sessions() as session:
                _texts(session, request)
                tasks = tasks_of(session, self._task_data, request)
            facts = Facts(resolution.inline_facts(request.model.config), (), None, (), tasks)
        else:
            assert request.model.repo is not None, "the model is a repo or a config"
            facts = self._facts(request, who, request.model.repo, request.model.revision)
        spec = self._resolve(request, facts)
        found = resolution.plan(request, facts.model, spec)
        answer = found.to_json()
        answer["estimated"]["gpu_memory_bytes"] = self._required_memory(facts.model, spec, found)
        return answer

    def _required_memory(self, model: ModelFacts, spec: dict[str, Any], plan: Plan) -> int:
        return required_memory(model, spec, plan, largest=self._largest_worker_memory)

    def _resolve(self, request: JobRequest | PlanRequest, facts: Facts) -> dict[str, Any]:
        tasks = {task.source.name: task.source.task for task in facts.tasks}
        spec = resolution.resolve(request, facts.model, facts.rivals, tasks)
        if request.benchmark.backend == "vllm" and self._vllm is False:
            raise NotAvailable(
                "vllm is not installed on this machine, where the worker runs too; install it there, or leave backend "
                "out to measure with transformers.",
                pointer="/benchmark/backend",
            )
        check_tasks(facts.tasks, self._store)
        length, column = spec["scoring"]["sequence_length"], spec["calibration"]["column"]
        _check_texts(facts, self._store, length=length, column=column)
        return spec

    def _check_output(self, repo: str, model: str, who: Caller) -> None:
        with self._sessions() as session:
            try:
                check_may_publish(session, who, repo)
                check_as_closed(session, directory.find_repo(session, model), repo)
            except hub_errors.NotAllowed as error:
                raise ModelNotAllowed(str(error), pointer="/output/repo") from None

    def _facts(self, request: JobRequest | PlanRequest, who: Caller, repo: str, revision: str | None) -> Facts:
        rivals = [_rival_named(name, index) for index, name in enumerate(request.benchmark.rivals or ())]
        with _named_by("/model/repo", repo, revision_pointer="/model/revision"):
            self._copy(who, repo, revision)
        for pointer, name, commit in rivals:
            with _named_by(pointer, name):
                self._copy(who, name, commit)
        with self._sessions() as session:
            with _named_by("/model/repo", repo, revision_pointer="/model/revision"):
                readable(session, who, repo, files=True)
                model = catalog.revision_of(session, repo, revision or DEFAULT_BRANCH)
            found = tuple(_rival_revision(session, who, *rival) for rival in rivals)
            rows = _Rows(model, found, _texts(session, request), tasks_of(session, self._task_data, request))
        return self._read(rows)

    def _copy(self, who: Caller, repo: str, revision: str | None) -> None:
        if self._mirror is not None:
            self._mirror.ensure(repo, revision, who=who)

    def _read(self, rows: _Rows) -> Facts:
        """The facts that lie in the store."""
        with _named_by("/model/repo", rows.model.repo, revision_pointer="/model/revision"):
            model = self._model(rows.model)
            try:
                tokenizer = catalog.tokenizer_path(self._store, rows.model)
            except hub_errors.EntryNotFound:
                tokenizer = None
        rivals = tuple(self._rival(rival, f"/benchmark/rivals/{index}") for index, rival in enumerate(rows.rivals))
        return Facts(model, rows.texts, tokenizer, rivals, rows.tasks)

    def _rival(self, rival: Revision, pointer: str) -> RivalFacts:
        with _named_by(pointer, rival.repo):
            config = catalog.config_of(self._store, rival)
            if not catalog.tensor_headers_of(self._store, rival):
                raise NoSafetensors(
                    f"{rival.repo} at {rival.commit[:12]} has no safetensors weights to time.", pointer=pointer
                )
        try:
            _refuse_adapter(rival)
            return RivalFacts(rival.repo, rival.commit, max_positions(config), own_code="auto_map" in config)
        except ArchitectureError as error:
            raise resolution.model_problem(error, pointer) from None

    def _model(self, model: Revision) -> ModelFacts:
        config = catalog.config_of(self._store, model)
        headers = catalog.tensor_headers_of(self._store, model)
        if not headers:
            raise NoSafetensors(
                f"{model.repo} at {model.commit[:12]} has no safetensors weights. Convert it: load it with "
                "transformers, save it with save_pretrained(..., safe_serialization=True), and import that directory.",
                pointer="/model/repo",
            )
        try:
            _refuse_adapter(model)
            refuse_uncuttable(config)
            resolution.check_sizes(config)
            cut_layer_fields(config, range(layer_count(config)))  # lists that are not lists of its layers
            counts = ParameterCounts.from_tensors(config, _sizes(headers))
            if 0 in counts.per_layer:
                raise ArchitectureError(f"the weights hold no tensor of decoder layer {counts.per_layer.index(0)}")
        except ArchitectureError as error:
            raise resolution.model_problem(error, "/model/repo") from None
        return ModelFacts(config, counts, repo=model.repo, commit=model.commit, dtype=_dtype(headers))


def _refuse_adapter(model: Revision) -> None:
    if reason := adapter_refusal([file.path for file in model.files]):
        raise CannotBeCut(reason)


def _rival_named(name: str, index: int) -> tuple[str, str, str | None]:
    """Pointer, repository and revision of a rival of the benchmark, `repo` or `repo@revision`."""
    repo, _, revision = name.partition("@")
    return f"/benchmark/rivals/{index}", repo, revision or None


def _rival_revision(session: Session, who: Caller, pointer: str, repo: str, revision: str | None) -> Revision:
    with _named_by(pointer, repo):
        readable(session, who, repo, files=True)
        return catalog.revision_of(session, repo, revision or DEFAULT_BRANCH)


def _texts(session: Session, request: JobRequest | PlanRequest) -> tuple[TextFacts, ...]:
    """The data sets that the request names.

    Raises:
        UnknownDataset, UnknownColumn, ConflictingFields: as their docstrings say.
    """
    column = request.calibration.column or defaults.TEXT_COLUMN
    dataset = request.calibration.dataset or defaults.SELF_TEXT
    calibration = []
    if dataset != defaults.SELF_TEXT:
        needed = resolution.sequences_needed(request)
        calibration.append(_text(session, dataset, column, pointer="/calibration/dataset", sequences=needed))
    judged: dict[str, TextFacts] = {}
    for index, name in enumerate(request.evaluation.perplexity or ()):
        pointer = f"/evaluation/perplexity/{index}"
        if name in judged:  # the report has one entry per id
            raise ConflictingFields(f"The evaluation data set {name} is named twice; name it once.", pointer=pointer)
        judged[name] = _text(session, name, column, pointer=pointer, sequences=1)
    return (*calibration, *judged.values())


def _text(session: Session, dataset: str, column: str, *, pointer: str, sequences: int) -> TextFacts:
    row = datasets.get(session, dataset)
    if row is None:
        raise UnknownDataset(_nearest_datasets(session, dataset), pointer=pointer)
    if row.format == "jsonl" and column not in row.columns:
        raise UnknownColumn(
            f"{row.name} ({row.id}) has no text in a column {column!r} of every row; there are: "
            f"{', '.join(row.columns)}. Name one of them as calibration.column.",
            pointer="/calibration/column",
        )
    return TextFacts(pointer, row.name, "jsonl" if row.format == "jsonl" else "text", row.sha256, sequences)


@contextmanager
def _named_by(pointer: str, repo: str, *, revision_pointer: str | None = None) -> Iterator[None]:
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


def _nearest_datasets(session: Session, dataset: str) -> str:
    known = datasets.names(session)
    words = {word: f"{id_} ({name})" for id_, name in known for word in (id_, name)}
    near = list(dict.fromkeys(words[word] for word in difflib.get_close_matches(dataset, words, n=_SUGGESTIONS)))
    near = near or [f"{id_} ({name})" for id_, name in known[:_SUGGESTIONS]]
    nearest = f"The nearest: {', '.join(near)}." if near else "None has been uploaded yet."
    return (
        f"There is no data set with the id {dataset!r}. {nearest} Upload one with POST /v1/datasets; calibration "
        f"without any is {defaults.SELF_TEXT}, which cannot be used for evaluation."
    )


def _sizes(headers: Mapping[str, Header]) -> dict[str, int]:
    """Elements of every tensor of the checkpoint."""
    return {name: math.prod(entry.shape) for header in headers.values() for name, entry in header.tensors.items()}


def _dtype(headers: Mapping[str, Header]) -> str | None:
    """The one dtype of all weights, under its name in a request; None where they differ."""
    found = {entry.dtype for header in headers.values() for entry in header.tensors.values()}
    return _DTYPES.get(found.pop()) if len(found) == 1 else None


def _check_texts(facts: Facts, store: BlobStore, *, length: int, column: str) -> None:
    """Refuse text that does not make the sequences that it has to make.

    Raises:
        TextTooShort: with the tokens that were found and needed.
        UnknownDataset: the store has lost its bytes.
        UnreadableModel: the tokenizer is not one.
    """
    for text in facts.texts:
        try:
            path = store.local_path(text.sha256)
        except (BlobNotFound, BlobCorrupt) as error:
            raise UnknownDataset(f"{text.name}: {error}", pointer=text.pointer) from None
        if facts.tokenizer is None:
            continue
        needed = length * text.sequences
        try:
            found = count_tokens(
                path,
                text.format,
                column,
                tokenizer=facts.tokenizer,
                enough=needed,
                separators=_has_separator(facts.model.config),
            )
        except UnreadableTokenizer as error:
            raise UnreadableModel(
                f"tokenizer.json of {facts.model.repo} cannot be read: {error}. Import the model again.",
                pointer="/model/repo",
            ) from None
        if found < needed:
            raise _too_short(text, found=found, needed=needed, length=length)


def _too_short(text: TextFacts, *, found: int, needed: int, length: int) -> InvalidRequest:
    what = f"one sequence of {length}" if text.sequences == 1 else f"one sequence of {length} and one held out"
    remedy = "" if text.sequences == 1 else ", name an evaluation data set"
    return TextTooShort(
        f"{text.name} has {found:,} tokens and {needed:,} are needed for {what}. Upload more text{remedy}, or lower "
        "scoring.sequence_length.",
        pointer=text.pointer,
    )


def _has_separator(config: Config) -> bool:
    return any(config.get(name) is not None for name in ("bos_token_id", "eos_token_id"))
