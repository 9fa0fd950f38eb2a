"""The tasks of a request, as the door sees them: is there such a task, are its data here, can it be made of them?"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy.orm import Session

from app.core.tasks import (
    GROUPS,
    OWN,
    PAPER_SUITE,
    TASKS,
    ColumnsMissing,
    TaskDataError,
    known_tasks,
    nearest,
    read_rows,
    right_option,
)
from app.datasets import repository as datasets
from app.datasets.tasks import TaskSource, find_task
from app.errors import (
    BadTaskData,
    ConflictingFields,
    InvalidRequest,
    MissingTaskData,
    NoUsableQuestion,
    UnknownColumn,
    UnknownTask,
)
from app.jobs.spec import JobRequest, PlanRequest
from app.storage.blobs import BlobNotFound, BlobStore


@dataclass(frozen=True)
class TaskFacts:
    """A task that the request names or gets by default."""

    pointer: str
    source: TaskSource


def tasks_of(session: Session, mirror: Path | None, request: JobRequest | PlanRequest) -> tuple[TaskFacts, ...]:
    """The tasks that the request names, groups taken apart; those of the paper that have data where it names none.

    Raises:
        UnknownTask, MissingTaskData, ConflictingFields: as their docstrings say.
    """
    asked = request.evaluation.tasks
    if asked is None:
        found = (find_task(session, mirror, name) for name in PAPER_SUITE)
        return tuple(TaskFacts("/evaluation/tasks", source) for source in found if source is not None)
    named: dict[str, TaskFacts] = {}
    for index, name in enumerate(asked):
        pointer = f"/evaluation/tasks/{index}"
        sources = [find_task(session, mirror, member) for member in GROUPS.get(name, (name,))]
        if not any(sources):
            raise _no_task(session, mirror, name, pointer)
        for source in filter(None, sources):
            if source.name in named:  # the report has one entry per task
                raise ConflictingFields(f"The task {source.name} is named twice; name it once.", pointer=pointer)
            named[source.name] = TaskFacts(pointer, source)
    return tuple(named.values())


def _no_task(session: Session, mirror: Path | None, name: str, pointer: str) -> InvalidRequest:
    if name in TASKS or name in GROUPS:
        file = TASKS[name].file if name in TASKS else f"{name}/..."
        elsewhere = "the service has no mirror" if mirror is None else "the service's mirror does not have it"
        return MissingTaskData(
            f"There are no data for the task {name}: no uploaded data set is called {file}, and {elsewhere} "
            "(STREAMLINE_TASK_DATA). Upload the file under that name with POST /v1/datasets.",
            pointer=pointer,
        )
    ids = [id_ for id_, _ in datasets.names(session)]
    return UnknownTask(
        f"There is no task {name!r}, and no JSONL data set with that id. The nearest: {', '.join(nearest(name, ids))}. "
        f"Known are {', '.join(known_tasks())}, and the ids of data sets of your own multiple-choice questions.",
        pointer=pointer,
    )


def check_tasks(tasks: Iterable[TaskFacts], store: BlobStore, *, limit: int) -> None:
    """Refuse rows that the tasks cannot be made of, by reading those that will be asked.

    Raises:
        UnknownColumn, BadTaskData, NoUsableQuestion, MissingTaskData: as their docstrings say.
    """
    for task in tasks:
        place = task.source.rows
        try:
            path = place if isinstance(place, Path) else store.local_path(place.sha256)
            rows = read_rows(path, task.source.task, limit)
        except BlobNotFound as error:
            raise MissingTaskData(f"{task.source.name}: {error}", pointer=task.pointer) from None
        except ColumnsMissing as error:
            raise UnknownColumn(f"{task.source.name}: {error}.", pointer=task.pointer) from None
        except TaskDataError as error:
            raise BadTaskData(f"{task.source.name}: {error}.", pointer=task.pointer) from None
        if task.source.definition == OWN and all(right_option(row["choices"], row["label"]) is None for row in rows):
            raise NoUsableQuestion(
                f"No row of {task.source.name} has two or more `choices` and a `label` among them: a place counted "
                "from 0, a letter from A, or the text of one choice.",
                pointer=task.pointer,
            )
