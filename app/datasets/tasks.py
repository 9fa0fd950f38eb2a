"""Where the rows of a task are: in an uploaded data set of the file's name, or in a mirror; or a data set is a task."""

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from sqlalchemy.orm import Session

from app.core.tasks import OWN, TASKS, Task, by_definition
from app.datasets import repository
from app.db.models import DatasetRow


@dataclass(frozen=True)
class TaskSource:
    """A task of a request, and where its rows are: in a data set's blob, or in a file of the mirror."""

    name: str
    definition: str
    rows: DatasetRow | Path

    @property
    def task(self) -> Task:
        """What its rows must hold."""
        return by_definition(self.definition)


def find_task(session: Session, mirror: Path | None, name: str) -> TaskSource | None:
    """The task of a name, or of a user's own data set by its id; None where there are no data.

    Args:
        session: to look for data sets; the newest one of a name counts.
        mirror: directory with the tasks' files.
        name: of a task, or the id of a data set of multiple-choice questions.
    """
    task = TASKS.get(name)
    row = repository.get(session, name) if task is None else repository.newest(session, _names(task))
    if row is not None and row.format == "jsonl":
        return TaskSource(name, name if task else OWN, row)
    if task is not None and mirror is not None and (path := mirror / task.file).is_file():
        return TaskSource(name, name, path)
    return None


def _names(task: Task) -> list[str]:
    return [task.file, PurePosixPath(task.file).name, task.name]
