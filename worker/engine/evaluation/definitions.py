"""From a task of a recipe to the harness' own object, with its questions read: our definitions, or those it brings."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from app.core.task_rows import split_rows
from app.core.tasks import NoUsableQuestion, Task, TaskDataError, by_definition
from worker.engine.errors import EngineError
from worker.engine.recipe import TaskData

DEFINITIONS: Final = Path(__file__).parent / "tasks"
_SEED = 1234  # the harness' own, for tasks that draw examples


def load_task(task: TaskData) -> Any:
    """Return the harness' task, which goes by the name of the recipe.

    Raises:
        EngineError: `no_usable_question`; `bad_task_data`, with the reason.
    """
    definition = by_definition(task.definition)
    try:
        found = _of_harness(definition, Path(task.path)) if definition.split else _of_ours(task)
        if not len(found.eval_docs):
            raise NoUsableQuestion("the harness makes no question of its rows")
    except NoUsableQuestion as error:
        raise EngineError("no_usable_question", f"{task.name}: {error}") from error
    except TaskDataError as error:
        raise EngineError("bad_task_data", f"{task.name}: {error}") from error
    found.config.task = task.name
    found.set_fewshot_seed(_SEED)
    return found


def _of_ours(task: TaskData) -> Any:
    from lm_eval.tasks import TaskManager

    definitions = TaskManager(include_path=str(DEFINITIONS), include_defaults=False, metadata={"path": task.path})
    return definitions.load([task.definition])["tasks"][task.definition]


def _of_harness(task: Task, path: Path) -> Any:
    """Return a task that the harness brings, its data set taken from a file of ours and not from the Hub.

    Raises:
        TaskDataError: the definition can make no questions of the rows.
    """
    import lm_eval.tasks
    from datasets import Dataset
    from lm_eval.api.task import ConfigurableTask
    from lm_eval.tasks._yaml_loader import load_yaml

    place = Path(lm_eval.tasks.__file__).parent / task.directory
    own = lm_eval.tasks.TaskManager(include_path=str(place), include_defaults=False).task_index[task.name]
    config: dict[str, Any] = load_yaml(own.yaml_path, resolve_func=True)
    for structure in ("tag", "group", "task_list"):  # of the harness' index, and no fields of a task
        config.pop(structure, None)
    rows = split_rows(path, task)
    parts = ("training_split", "validation_split", "test_split", "fewshot_split")
    # The harness opens every split that a definition names; one that is neither asked nor shown may be any rows.
    names = {str(config[part]) for part in parts if config.get(part)} | {task.split, *rows}
    try:
        splits = {name: Dataset.from_list(rows.get(name, rows[task.split])) for name in names}
        return ConfigurableTask(config={**config, "custom_dataset": lambda **_: splits})
    except Exception as error:  # whatever the definition's own code meets in rows of another form
        raise TaskDataError(f"{task.name} of the harness cannot be made of its rows: {error!r}") from error
