"""Where the rows of a task are: in a data set, or in a file of the mirror; or a data set is a task of its own.

Who may provide the rows of a task by its name: the operator, by the mirror; where the mirror has no such file, whoever
may upload, and the newest upload of the file's name counts, which its owner or an admin alone may replace. A request
that names the data set itself asks neither.
"""

from dataclasses import dataclass
from pathlib import Path

from sqlalchemy.orm import Session

from app.core.tasks import OWN, Task, by_definition, find
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


def find_task(session: Session, mirror: Path | None, name: str, dataset: str | None = None) -> TaskSource | None:
    """The task of a name, or of a user's own data set by its id; None where there are no data.

    Args:
        session: to look for data sets.
        mirror: directory with the tasks' files.
        name: of a task, or the id of a data set of multiple-choice questions.
        dataset: id of the data set that has the rows; None: the mirror's file, or the newest upload of its name.
    """
    task = find(name)
    definition = OWN if task is None else name
    if dataset is None and task is not None and mirror is not None and (path := mirror / task.file).is_file():
        return TaskSource(name, definition, path)
    if dataset is not None or task is None:
        row = repository.get(session, dataset or name)
    else:
        row = repository.newest(session, task.upload_names)
    return TaskSource(name, definition, row) if row is not None and row.format == "jsonl" else None
