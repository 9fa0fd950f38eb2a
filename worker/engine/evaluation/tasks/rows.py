"""How the definitions beside this module come to their questions: `load` is their `custom_dataset`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from app.core.task_rows import Questions, read_questions
from app.core.tasks import by_definition

MIRROR = "STREAMLINE_TASK_DATA"
"""The environment variable that names the directory of the files, for the harness' own command line."""


def load(task: str, path: str | None = None, **_: Any) -> dict[str, Questions]:
    """Return the questions of a task as the one split `test`.

    Args:
        task: name of the definition.
        path: file of the rows; by default the task's file below $STREAMLINE_TASK_DATA.

    Raises:
        TaskDataError: as `read_questions`.
    """
    definition = by_definition(task)
    file = Path(path) if path else Path(os.environ.get(MIRROR, ".")) / definition.file
    return {"test": read_questions(file, definition)}
