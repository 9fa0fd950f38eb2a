"""Put the questions of tasks to a model, through lm-evaluation-harness, and keep what it answered to each.

Records have the form of the harness' sample files, with the tokens of each option beside them (`token_counts`), and for
`over: prompt` the mean negative log-likelihood of the whole prompt with each option (`prompt_nll`).
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from app.core.predictions import answer_of
from app.core.tasks import Kind, by_definition
from worker.engine.code_version import code_version
from worker.engine.context import StageContext, sha256_of, write_bytes
from worker.engine.errors import EngineError
from worker.engine.evaluation.definitions import load_task
from worker.engine.execution import shared_model, shared_written, within_memory
from worker.engine.fetch import OUTPUT as MODEL
from worker.engine.ledger import sha256_of_file
from worker.engine.recipe import Over, TaskData

WRITTEN_BY_STREAMED = "a streamed model would read all its weights for every token of a written answer"

Record = dict[str, Any]
Records = dict[str, list[Record]]
"""Task -> a record for each question, in the order of the file."""


def answerable(context: StageContext) -> tuple[tuple[TaskData, ...], dict[str, str]]:
    """Return the tasks that the run can put to both models, and task -> reason of those that it cannot."""
    tasks = context.recipe.judging.tasks
    whole = shared_model(context).execution == "resident"
    left_out = {} if whole else {task.name: WRITTEN_BY_STREAMED for task in tasks if kind(task) == "generation"}
    return tuple(task for task in tasks if task.name not in left_out), left_out


def ask_dense(context: StageContext, tasks: Sequence[TaskData], progress: Callable[[int, int], None]) -> Records:
    """Return the dense model's answers to the tasks; those known from an earlier run are not computed again.

    Raises:
        EngineError: `no_usable_question`; `bad_task_data`; `not_finite`, naming the question, where a log-likelihood is
            no finite number.
    """
    kept = {task.name: _kept(context, task) for task in tasks}
    records = {name: _read(path) for name, path in kept.items() if path.is_file()}
    for name in records:
        context.emit.log(f"{name}: the dense model's answers are known from an earlier run")
    missing = [task for task in tasks if task.name not in records]
    for name, found in _ask(context, missing, progress, written=False).items():
        write_bytes(kept[name], lines(found))
        records[name] = found
    return {task.name: records[task.name] for task in tasks}


def ask_pruned(context: StageContext, tasks: Sequence[TaskData], progress: Callable[[int, int], None]) -> Records:
    """Return the written checkpoint's answers to the tasks; raises as `ask_dense`."""
    return _ask(context, tasks, progress, written=True)


def lines(records: Sequence[Record]) -> bytes:
    """Return records as JSON lines."""
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records).encode()


def _refuse_not_finite(records: Sequence[Record], task: str, variant: str) -> None:
    for record in records:
        answer = answer_of(record)
        if not all(map(math.isfinite, (*answer.nll, *answer.preference))):
            doc = record["doc"]
            own = next((f" ({name} {doc[name]})" for name in ("id", "qid", "ind", "pairID") if name in doc), "")
            raise EngineError(
                "not_finite",
                f"{task}: the {variant} model's log-likelihood of question {record['doc_id']}{own} is not a finite "
                "number; its weights or its dtype are broken",
            )


def kind(task: TaskData) -> Kind:
    """Return how a task is answered."""
    return by_definition(task.definition).kind


def written_examples(records: Mapping[str, Sequence[Record]], count: int) -> list[dict[str, str]]:
    """Return the first written answers of each variant side by side, with what is right; none of other tasks."""
    first = {variant: rows[:count] for variant, rows in records.items()}
    return [
        {"target": rows[0]["target"], **{name: row["resps"][0][0] for name, row in zip(first, rows, strict=True)}}
        for rows in zip(*first.values(), strict=True)
        if isinstance(rows[0]["resps"][0][0], str)
    ]


def _kept(context: StageContext, task: TaskData) -> Path:
    """Return where the dense model's answers are kept: a name for all that they depend on."""
    judging = context.recipe.judging
    parts = {
        "model": context.read_home_json(MODEL)["hash"],
        "task": task.definition, "data": sha256_of_file(Path(task.path)),
        "limit": judging.limit, "over": judging.over, "code": code_version(), "device": context.device,
    }  # fmt: skip
    return context.cache / "dense" / f"{task.definition}-{sha256_of(parts)[:32]}.jsonl"


def _read(path: Path) -> list[Record]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _ask(
    context: StageContext, tasks: Sequence[TaskData], progress: Callable[[int, int], None], *, written: bool
) -> Records:
    if not tasks:
        return {}
    # Takes a second to import, and only tasks need it.
    from lm_eval.evaluator import evaluate

    from worker.engine.evaluation.language_model import LanguageModel

    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    judging = context.recipe.judging
    loaded = {task.name: _loaded(task, context) for task in tasks}
    model = shared_written(context) if written else shared_model(context)
    asked = LanguageModel(model, partial(within_memory, context, written=written), judging.over, progress)
    del model  # memory that runs out may call for another
    results: Any = evaluate(lm=asked, task_dict={"tasks": loaded}, limit=judging.limit, bootstrap_iters=0)
    samples = results["samples"]
    records = {task.name: [_record(sample, asked, judging.over) for sample in samples[task.name]] for task in tasks}
    for name, found in records.items():
        _refuse_not_finite(found, name, "pruned" if written else "dense")
    return records


def _loaded(task: TaskData, context: StageContext) -> Any:
    found = load_task(task)
    if unusable := getattr(found.eval_docs, "unusable", 0):
        context.emit.log(f"{task.name}: {unusable} questions without a right answer among their options are left out")
    return found


def _record(sample: Mapping[str, Any], asked: Any, over: Over) -> Record:
    """Return a sample as the harness writes it to a file, and what the likelihoods are over."""
    from lm_eval.utils import handle_non_serializable, sanitize_list

    arguments = sample["arguments"]
    record = {
        **sample,
        "target": str(sample["target"]),
        "arguments": {
            f"gen_args_{i}": {f"arg_{j}": part for j, part in enumerate(one)} for i, one in enumerate(arguments)
        },
        "resps": sanitize_list(sample["resps"]),
        "filtered_resps": sanitize_list(sample["filtered_resps"]),
    }
    scored = [asked.found[one] for one in arguments if isinstance(one[1], str)]
    if scored:
        record["token_counts"] = [likelihood.tokens for likelihood in scored]
        if over == "prompt":
            record["prompt_nll"] = [likelihood.prompt_nll for likelihood in scored]
    plain: Record = json.loads(json.dumps(record, default=handle_non_serializable))
    return plain
