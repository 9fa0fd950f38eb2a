"""What the tasks that lm-evaluation-harness itself brings need, written down for the door, which has no harness.

`python -m worker.engine.evaluation.harness_index > app/core/harness_tasks.json` after the harness has been updated.
Left out are tasks in Python code, and those whose answers are not right or wrong.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from app.core.tasks import Kind

_KINDS: Final[Mapping[str, tuple[Kind, str]]] = {
    "multiple_choice": ("choice", "acc"),
    "loglikelihood": ("completion", "acc"),
    "generate_until": ("generation", "exact_match"),
}
"""Output type -> how it is answered, and the metric that says right or wrong."""


def index() -> list[dict[str, Any]]:
    """Return the forms of all tasks of the installed harness, each with the names of its tasks, sorted."""
    import lm_eval.tasks
    from lm_eval.tasks import TaskManager

    root = Path(lm_eval.tasks.__file__).parent
    forms: dict[str, list[str]] = {}
    for name, entry in TaskManager().task_index.items():
        if entry.kind.name == "TASK" and (form := _form(entry.cfg)) is not None:
            form["directory"] = entry.yaml_path.parent.relative_to(root).as_posix()
            forms.setdefault(json.dumps(form, sort_keys=True), []).append(name)
    return [json.loads(form) | {"names": sorted(names)} for form, names in sorted(forms.items())]


def _form(config: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return what a task's rows have to be; None of a task that is not offered."""
    kind, metric = _KINDS.get(config.get("output_type", "generate_until"), (None, ""))
    metrics = [one.get("metric") for one in config.get("metric_list") or ()]
    own_scores = "process_results" in config and kind != "choice"
    if kind is None or metric not in metrics or own_scores or "custom_dataset" in config or not _has_split(config):
        return None
    split = config.get("test_split") or config.get("validation_split")
    examples = _examples(config)
    shown = int(config["num_fewshot"]) if examples else 0
    return {"kind": kind, "columns": _columns(config), "split": split, "examples": shown, "examples_split": examples}


def _has_split(config: Mapping[str, Any]) -> bool:
    return bool(config.get("test_split") or config.get("validation_split"))


def _examples(config: Mapping[str, Any]) -> str | None:
    """Return the split that answered examples are taken from; None where none are shown, or the definition has them."""
    if not config.get("num_fewshot") or "samples" in (config.get("fewshot_config") or {}):
        return None
    names = ("fewshot_split", "training_split", "validation_split", "test_split")
    given = (config.get("fewshot_config") or {}).get("split")
    return str(given or next(config[name] for name in names if config.get(name)))


def _columns(config: Mapping[str, Any]) -> list[str]:
    """Return the fields that the prompt names; none where code makes the questions out of the rows."""
    from jinja2 import Environment, meta
    from jinja2.exceptions import TemplateError

    if "process_docs" in config:
        return []
    found: set[str] = set()
    for part in ("doc_to_text", "doc_to_target", "doc_to_choice"):
        template = config.get(part)
        if isinstance(template, str) and ("{{" in template or "{%" in template):
            try:
                found |= meta.find_undeclared_variables(Environment(autoescape=True).parse(template))
            except TemplateError:
                return []
        elif isinstance(template, str) and template.isidentifier():
            found.add(template)
    return sorted(found)


if __name__ == "__main__":
    sys.stdout.write("[\n" + ",\n".join(json.dumps(form, ensure_ascii=False) for form in index()) + "\n]\n")
