"""What is checked at the door: a job that is refused here never costs a place in the queue.

Four steps: have what the request names here, copied from the upstream hub if need be; gather its rows in one short read
transaction; read what they point to from the store, with no connection held; resolve the request against all that.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session, sessionmaker

from app.core.device_memory import LARGEST_WORKER_MEMORY, class_floor
from app.core.plan import Plan
from app.errors.references import ModelNotAllowed
from app.errors.requests import NotAvailable
from app.hub import catalog, directory
from app.hub import errors as hub_errors
from app.hub.access import Caller, check_as_closed, check_may_publish, readable
from app.hub.catalog import Revision
from app.hub.revisions import DEFAULT_BRANCH
from app.hub.upstream.mirror import Mirror
from app.jobs.facts import ModelFacts, RivalFacts, inline_facts
from app.jobs.memory_need import required_memory
from app.jobs.model_door import model_facts, named_by, rival_facts
from app.jobs.planning import plan_of
from app.jobs.resolution import resolve
from app.jobs.spec.request import JobRequest, PlanRequest
from app.jobs.task_door import MirrorCopy, TaskFacts, check_tasks, pin_tasks, tasks_of
from app.jobs.text_door import TextFacts, check_texts, texts_of
from app.storage.blobs import BlobStore


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
        need = self._required_memory(facts.model, spec, plan_of(request, facts.model, spec))
        return Admitted(spec, copies, need)

    def plan(self, request: PlanRequest, who: Caller) -> dict[str, Any]:
        """The answer to a dry run, after the same checks that a job would have to pass.

        Raises:
            InvalidRequest: as admit; PlanNeedsWeights for an inline config of a family without a formula.
        """
        if request.model.config is not None:
            with self._sessions() as session:
                texts_of(session, request)
                tasks = tasks_of(session, self._task_data, request)
            facts = Facts(inline_facts(request.model.config), (), None, (), tasks)
        else:
            assert request.model.repo is not None, "the model is a repo or a config"
            facts = self._facts(request, who, request.model.repo, request.model.revision)
        spec = self._resolve(request, facts)
        found = plan_of(request, facts.model, spec)
        answer = found.to_json()
        answer["estimated"]["gpu_memory_bytes"] = self._required_memory(facts.model, spec, found)
        return answer

    def _required_memory(self, model: ModelFacts, spec: dict[str, Any], plan: Plan) -> int:
        return required_memory(model, spec, plan, largest=self._largest_worker_memory)

    def _resolve(self, request: JobRequest | PlanRequest, facts: Facts) -> dict[str, Any]:
        tasks = {task.source.name: task.source.task for task in facts.tasks}
        spec = resolve(request, facts.model, facts.rivals, tasks)
        if request.benchmark.backend == "vllm" and self._vllm is False:
            raise NotAvailable(
                "vllm is not installed on this machine, where the worker runs too; install it there, or leave backend "
                "out to measure with transformers.",
                pointer="/benchmark/backend",
            )
        check_tasks(facts.tasks, self._store)
        length, column = spec["scoring"]["sequence_length"], spec["calibration"]["column"]
        check_texts(facts.texts, self._store, facts.model, facts.tokenizer, length=length, column=column)
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
        with named_by("/model/repo", repo, revision_pointer="/model/revision"):
            self._copy(who, repo, revision)
        for pointer, name, commit in rivals:
            with named_by(pointer, name):
                self._copy(who, name, commit)
        with self._sessions() as session:
            with named_by("/model/repo", repo, revision_pointer="/model/revision"):
                readable(session, who, repo, files=True)
                model = catalog.revision_of(session, repo, revision or DEFAULT_BRANCH)
            found = tuple(_rival_revision(session, who, *rival) for rival in rivals)
            rows = _Rows(model, found, texts_of(session, request), tasks_of(session, self._task_data, request))
        return self._read(rows)

    def _copy(self, who: Caller, repo: str, revision: str | None) -> None:
        if self._mirror is not None:
            self._mirror.ensure(repo, revision, who=who)

    def _read(self, rows: _Rows) -> Facts:
        """The facts that lie in the store."""
        with named_by("/model/repo", rows.model.repo, revision_pointer="/model/revision"):
            model = model_facts(self._store, rows.model)
            try:
                tokenizer = catalog.tokenizer_path(self._store, rows.model)
            except hub_errors.EntryNotFound:
                tokenizer = None
        rivals = tuple(
            rival_facts(self._store, rival, f"/benchmark/rivals/{index}") for index, rival in enumerate(rows.rivals)
        )
        return Facts(model, rows.texts, tokenizer, rivals, rows.tasks)


def _rival_named(name: str, index: int) -> tuple[str, str, str | None]:
    """Pointer, repository and revision of a rival of the benchmark, `repo` or `repo@revision`."""
    repo, _, revision = name.partition("@")
    return f"/benchmark/rivals/{index}", repo, revision or None


def _rival_revision(session: Session, who: Caller, pointer: str, repo: str, revision: str | None) -> Revision:
    with named_by(pointer, repo):
        readable(session, who, repo, files=True)
        return catalog.revision_of(session, repo, revision or DEFAULT_BRANCH)
