"""Model families and evaluation tasks: from the tables in `app.core`."""

from typing import Final

from app.core import family_table
from app.core.tasks import GROUPS, PAPER_SUITE, TASKS, Task
from documentation.tables import code, table

_FAMILIES: Final = """# Models and tasks

## Model families

By `model_type` in the model's config.json; weights in safetensors, tied or untied embeddings.

* **every replacement**: what a layer is made of is known, so that `ffn`, `swiglu` and the linear kinds fit in, and a
  plan needs the config alone;
* **`layer` and `none`**: where the layers lie and what they weigh is read from the checkpoint.

A kind may still be refused for one family, with the reason: a linear map cannot be folded behind a norm, say.

"""

_TASKS: Final = """
## Tasks

By their names in `evaluation.tasks`. Rows are JSON lines in a file below the directory that `STREAMLINE_TASK_DATA`
names, or an uploaded data set of that file's name. Single tasks of lm-evaluation-harness run by their own names beside
these; so do your own multiple-choice questions, by their data set's id. Those marked are asked by default where they
have data, because LLM-Streamline is judged on them.

"""


def page() -> str:
    """The page."""
    rows = [[code(name), "every replacement"] for name in family_table.FAMILIES]
    rows += [[code(name), "`layer` and `none`"] for name in family_table.DISCOVERED]
    members = {name for group in GROUPS.values() for name in group}
    tasks = [_row(task) for name, task in TASKS.items() if name not in members]
    for group, names in GROUPS.items():
        first = TASKS[names[0]]
        where = f"{first.file.rpartition('/')[0]}/*.jsonl"
        tasks.append([code(group), code(where), _columns(first), f"{len(names)} tasks, each by its own name too", ""])
    head = ("task", "file", "what a row holds", "how it is answered", "default")
    return _FAMILIES + table(("family", "takes"), rows) + _TASKS + table(head, tasks)


_ANSWERED: Final = {
    "choice": "choice among options",
    "completion": "the likeliest continuation",
    "generation": "a written answer",
}


def _row(task: Task) -> list[str]:
    examples = f", {task.examples} examples shown" if task.examples else ""
    how = f"{_ANSWERED[task.kind]}{', graded' if task.graded else ''}{examples}"
    return [code(task.name), code(task.file), _columns(task), how, "yes" if task.name in PAPER_SUITE else ""]


def _columns(task: Task) -> str:
    return ", ".join(map(code, task.columns))
