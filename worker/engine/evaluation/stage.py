"""The evaluate stage: perplexity and samples of the dense, the cut and the written pruned model, and their tasks.

`cut` is the dense model without the removed layers and with nothing in their place: what the replacement has to beat.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from torch import Tensor

from app.core.predictions import answer_of
from app.core.stability import compare, mean_of, retained
from app.core.windows import runs
from worker.engine.context import StageContext, write_bytes
from worker.engine.evaluation import questions
from worker.engine.evaluation.perplexity import (
    LogLikelihood,
    negative_log_likelihood,
    ratio,
    sequences_at_once,
    text_bytes,
)
from worker.engine.evaluation.samples import Samples
from worker.engine.execution import shared_model, shared_written, within_memory
from worker.engine.head import Head
from worker.engine.hidden_states import LayeredModel, Layers
from worker.engine.text import held_out_windows, text_windows

OUTPUT = "evaluation.json"
SAMPLES = "samples"
"""The directory of `TASK.dense.jsonl` and `TASK.pruned.jsonl`: a record for each question."""

VARIANTS = ("dense", "cut", "pruned")
_EXAMPLES = 3  # written answers shown side by side


def run(context: StageContext) -> None:
    """Write `evaluation.json`: perplexities per text, greedy samples, and tasks; and `samples`, a record per question.

    The dense model is done with before the pruned one is opened, so that a machine that holds one of them is enough.
    Raises EngineError `text_too_short` or `bad_text` where an evaluation text is of no use; `bad_task_data`,
    `no_usable_question` or `not_finite` of a task.
    """
    cut = runs(context.read_json("selection.json")["removed_layers"])
    tokenizer = shared_model(context).tokenizer
    texts = _texts(context, tokenizer)
    total, done = 3 * sum(len(windows) for windows in texts.values()), 0

    def progress(count: int) -> None:
        nonlocal done
        done = min(done + count, total)
        context.emit.progress(done, total, "sequences")

    def measured(windows: Tensor, cut: Layers | None, *, written: bool = False) -> dict[str, LogLikelihood]:
        work = partial(likelihoods, windows=windows, progress=progress, cut=cut)
        return within_memory(context, sequences_at_once(windows, context.device), work, written=written)

    sums = {name: measured(windows, cut) for name, windows in texts.items()}
    samples = Samples(next(iter(texts.values())), tokenizer)
    samples.add_dense(shared_model(context), cut)

    def answered(count: int, of: int) -> None:
        context.emit.progress(count, of, "questions")

    dense = questions.ask_dense(context, answered)
    sizes = {name: text_bytes(windows, tokenizer) for name, windows in texts.items()}
    for name, windows in texts.items():
        sums[name]["pruned"] = measured(windows, None, written=True)["dense"]
    samples.add_pruned(shared_written(context))
    pruned = questions.ask_pruned(context, answered)
    report = {name: _of_text(sums[name], sizes[name], len(windows)) for name, windows in texts.items()}
    for name, values in report.items():
        context.emit.metric(**{f"perplexity/{name}/{variant}": values[variant] for variant in VARIANTS})
    context.write_json(
        OUTPUT,
        {
            "perplexity": report,
            **_tasks(context, dense, pruned),
            "held_out": not context.recipe.evaluation,
            "sequence_length": context.recipe.scoring.sequence_length,
            "samples": samples.complete,
        },
    )
    if not samples.complete:
        context.emit.log("no sample texts: a streamed model would read all its weights for every token")


def _tasks(context: StageContext, dense: questions.Records, pruned: questions.Records) -> dict[str, Any]:
    """Write the records, and return what the tasks say, each and together."""
    judging = context.recipe.judging
    if not judging.tasks:
        return {"tasks": {}, "tasks_mean": None}
    found: dict[str, Any] = {}
    comparisons = []
    for task in judging.tasks:
        records = {"dense": dense[task.name], "pruned": pruned[task.name]}
        answers = {variant: [answer_of(row) for row in rows] for variant, rows in records.items()}
        comparison = compare(answers["dense"], answers["pruned"], seed=context.seed(task.name))
        comparisons.append(comparison)
        ratio_of_scores = retained([comparison])
        found[task.name] = {
            "kind": questions.kind(task),
            **comparison.to_json(),
            "retained": None if ratio_of_scores is None else ratio_of_scores.to_json(),
            "examples": questions.written_examples(records, _EXAMPLES),
        }
        for variant, rows in records.items():
            write_bytes(context.workspace / SAMPLES / f"{task.name}.{variant}.jsonl", questions.lines(rows))
        values = {f"accuracy/{task.name}/{name}": value for name, value in comparison.accuracy.items()}
        context.emit.metric(**values)
    return {
        "tasks": found,
        "tasks_mean": mean_of(comparisons).to_json(),
        "tasks_limit": judging.limit,
        "stability_over": judging.over,
    }


def _texts(context: StageContext, tokenizer: Any) -> dict[str, Tensor]:
    """Return name -> windows [count, sequence_length]; without evaluation texts, what calibration held out."""
    recipe = context.recipe
    if not recipe.evaluation:
        return {f"{recipe.calibration.name} (held out)": held_out_windows(context, tokenizer)}
    texts: dict[str, Tensor] = {}
    for text in recipe.evaluation:
        name, copies = text.name, 1
        while name in texts:
            copies += 1
            name = f"{text.name} ({copies})"
        texts[name] = text_windows(text, tokenizer, recipe.scoring.sequence_length)
    return texts


def likelihoods(
    model: LayeredModel,
    batch_size: int,
    *,
    windows: Tensor,
    progress: Callable[[int], None],
    cut: Layers | None = None,
) -> dict[str, LogLikelihood]:
    """Return the likelihood of token windows [sequences, length] as `dense`, and as `cut` where that is asked for.

    Args:
        model: what predicts them.
        batch_size: sequences at a time.
        windows: token ids without padding.
        progress: told the number of sequences done since the last call.
        cut: predict them without these layers too.
    """
    sums = {name: LogLikelihood() for name in (("dense",) if cut is None else ("dense", "cut"))}
    with ExitStack() as until_done:
        heads: list[Head] = []

        def visit(variant: str, first: int, hidden: Tensor) -> None:
            if not heads:  # not before: a streamed model's layers have gone by then
                heads.append(until_done.enter_context(model.head()))
            ids = windows[first : first + len(hidden)].to(hidden.device, torch.long)
            sums[variant].add(*negative_log_likelihood(heads[0], hidden, ids))
            progress(len(ids))

        model.last_states(windows, batch_size, visit, cut=cut)
    return sums


def _of_text(sums: Mapping[str, LogLikelihood], size: int, sequences: int) -> dict[str, Any]:
    for likelihood in sums.values():
        likelihood.text_bytes = size
    found: dict[str, Any] = {variant: sums[variant].perplexity for variant in VARIANTS}
    found["byte"] = {variant: sums[variant].byte_perplexity for variant in VARIANTS}
    found["ratio"] = ratio(found["pruned"], found["dense"])
    found["cut_ratio"] = ratio(found["cut"], found["dense"])
    found["retained"] = ratio(found["dense"], found["pruned"])
    found["tokens"], found["bytes"], found["sequences"] = sums["dense"].tokens, size, sequences
    return found
