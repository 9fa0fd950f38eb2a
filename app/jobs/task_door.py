"""The tasks of a request, as the door sees them: is there such a task, are its data here, can it be made of them?

What it finds by name it turns into ids of data sets, so that whatever is uploaded or changed in the mirror later, all
attempts of a job use the bytes that were checked here.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy.orm import Session

from app.core import tasks as catalogue
from app.core.task_rows import read_questions
from app.core.tasks import GROUPS, OWN, PAPER_SUITE, ColumnsMissing, TaskDataError, known_tasks, nearest
from app.datasets import repository as datasets
from app.datasets.inspection import Contents, inspect
from app.datasets.tasks import TaskSource, find_task
from app.errors.references import (
    BadDataset,
    BadTaskData,
    MissingTaskData,
    NoUsableQuestion,
    UnknownColumn,
    UnknownDataset,
    UnknownTask,
)
from app.errors.requests import ConflictingFields, InvalidRequest
from app.jobs.spec.request import JobRequest, PlanRequest
from app.storage.blobs import Blob, BlobNotFound, BlobStore


@dataclass(frozen=True)
class TaskFacts:
    """A task that the request names or gets by default."""

    pointer: str
    source: TaskSource


@dataclass(frozen=True)
class MirrorCopy:
    """A file of the mirror, stored: what becomes a data set together with the job that uses it."""

    name: str
    blob: Blob
    contents: Contents


def tasks_of(session: Session, mirror: Path | None, request: JobRequest | PlanRequest) -> tuple[TaskFacts, ...]:
    """The tasks that the request names, groups taken apart; those of the paper that have data where it names none.

    Raises:
        UnknownTask, UnknownDataset, MissingTaskData, ConflictingFields: as their docstrings say.
    """
    asked, given = request.evaluation.tasks, request.evaluation.task_data or {}
    _refuse_unknown_data(session, given)
    if asked is None:
        found = (find_task(session, mirror, name, given.get(name)) for name in PAPER_SUITE)
        named = {source.name: TaskFacts("/evaluation/tasks", source) for source in found if source is not None}
    else:
        named = _named(session, mirror, asked, given)
    if unused := [name for name in given if name not in named]:
        raise ConflictingFields(
            f"evaluation.tasks has no task {unused[0]} that these rows could be for; it has "
            f"{', '.join(named) or 'none'}.",
            pointer=_pointer(unused[0]),
        )
    return tuple(named.values())


def _named(
    session: Session, mirror: Path | None, asked: Sequence[str], given: Mapping[str, str]
) -> dict[str, TaskFacts]:
    named: dict[str, TaskFacts] = {}
    for index, name in enumerate(asked):
        pointer = f"/evaluation/tasks/{index}"
        sources = [find_task(session, mirror, member, given.get(member)) for member in GROUPS.get(name, (name,))]
        if not any(sources):
            raise _no_task(session, mirror, name, pointer)
        for source in filter(None, sources):
            if source.name in named:  # the report has one entry per task
                raise ConflictingFields(f"The task {source.name} is named twice; name it once.", pointer=pointer)
            named[source.name] = TaskFacts(pointer, source)
    return named


def _refuse_unknown_data(session: Session, given: Mapping[str, str]) -> None:
    for name, dataset in given.items():
        row = datasets.get(session, dataset)
        if row is None:
            raise UnknownDataset(
                f"There is no data set with the id {dataset!r} for the task {name}; GET /v1/datasets lists those that "
                "are.",
                pointer=_pointer(name),
            )
        if row.format != "jsonl":
            raise BadTaskData(f"{row.name} ({row.id}) is plain text; a task needs JSONL.", pointer=_pointer(name))


def _pointer(name: str) -> str:
    return f"/evaluation/task_data/{name.replace('~', '~0').replace('/', '~1')}"


def _no_task(session: Session, mirror: Path | None, name: str, pointer: str) -> InvalidRequest:
    task = catalogue.find(name)
    if task is not None or name in GROUPS:
        file = task.file if task is not None else f"{name}/..."
        elsewhere = "the service has no mirror" if mirror is None else "the service's mirror does not have it"
        return MissingTaskData(
            f"There are no data for the task {name}: no uploaded data set is called {file}, and {elsewhere} "
            "(STREAMLINE_TASK_DATA). Upload the file under that name with POST /v1/datasets, or name a data set in "
            "evaluation.task_data.",
            pointer=pointer,
        )
    ids = [id_ for id_, _ in datasets.names(session)]
    return UnknownTask(
        f"There is no task {name!r}, and no JSONL data set with that id. The nearest: {', '.join(nearest(name, ids))}. "
        f"Known are {', '.join(known_tasks())}, the single tasks of "
        "lm-evaluation-harness by its names, and the ids of data sets of your own multiple-choice questions.",
        pointer=pointer,
    )


def check_tasks(tasks: Iterable[TaskFacts], store: BlobStore) -> None:
    """Refuse rows that the tasks cannot be made of: all of them are read, since any may be asked.

    Raises:
        UnknownColumn, BadTaskData, NoUsableQuestion, MissingTaskData: as their docstrings say.
    """
    for task in tasks:
        place = task.source.rows
        try:
            path = place if isinstance(place, Path) else store.local_path(place.sha256)
            read_questions(path, task.source.task)
        except BlobNotFound as error:
            raise MissingTaskData(f"{task.source.name}: {error}", pointer=task.pointer) from None
        except ColumnsMissing as error:
            raise UnknownColumn(f"{task.source.name}: {error}.", pointer=task.pointer) from None
        except catalogue.NoUsableQuestion as error:
            what = (
                ". A row needs two or more `choices` and a `label` among them: a place counted from 0, a letter from "
                "A, or the text of one choice"
            )
            hint = what if task.source.definition == OWN else ""
            raise NoUsableQuestion(f"{task.source.name}: {error}{hint}.", pointer=task.pointer) from None
        except TaskDataError as error:
            raise BadTaskData(f"{task.source.name}: {error}.", pointer=task.pointer) from None


def pin_tasks(tasks: Iterable[TaskFacts], store: BlobStore) -> tuple[dict[str, str], list[MirrorCopy]]:
    """Task -> id of the data set that has its rows, and the files of the mirror that are to become data sets for that.

    Called outside of any transaction, because the files' bytes are stored here.

    Raises:
        BadTaskData: a file of the mirror is no data set.
    """
    pinned: dict[str, str] = {}
    copies: list[MirrorCopy] = []
    for task in tasks:
        rows = task.source.rows
        if isinstance(rows, Path):
            name = task.source.task.file
            try:
                copy = MirrorCopy(name, store.put_file(rows), inspect(rows, name))
            except BadDataset as error:
                raise BadTaskData(f"{task.source.name}: {error}", pointer=task.pointer) from None
            pinned[task.source.name] = datasets.dataset_id(copy.blob.sha256, name)
            copies.append(copy)
        else:
            pinned[task.source.name] = rows.id
    # In one order everywhere, so that two submissions lock the blobs' rows in the same one.
    return pinned, sorted(copies, key=lambda copy: (copy.blob.sha256, copy.name))
