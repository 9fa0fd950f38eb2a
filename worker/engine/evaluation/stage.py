"""The evaluate stage: perplexity and samples of the dense, the cut and the written pruned model, and their tasks.

`cut` is the dense model without the removed layers and with nothing in their place: what the replacement has to beat.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from torch import Tensor

from app.core.bootstrap import perplexity_ratio
from app.core.predictions import answer_of
from app.core.stability import compare, mean_of, retained
from app.core.windows import runs
from worker.engine.context import StageContext, write_bytes
from worker.engine.device import sequences_at_once
from worker.engine.evaluation import questions
from worker.engine.evaluation.dense_texts import dense_and_cut
from worker.engine.evaluation.next_token import NextToken
from worker.engine.evaluation.perplexity import LogLikelihood, likelihoods, ratio, text_bytes
from worker.engine.evaluation.samples import Samples
from worker.engine.execution import shared_model, shared_written, within_memory
from worker.engine.head import Head
from worker.engine.recipe import TaskData
from worker.engine.text import context_tokens, held_out_windows, text_windows

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

    given = {name: context_tokens(windows, context.recipe.judging.stride) for name, windows in texts.items()}
    before = {
        name: dense_and_cut(context, name, windows, given[name], cut, progress) for name, windows in texts.items()
    }
    sums = {name: found for name, (found, _) in before.items()}
    samples = Samples(next(iter(texts.values())), tokenizer)
    samples.add_dense(shared_model(context), cut)

    def answered(count: int, of: int) -> None:
        context.emit.progress(count, of, "questions")

    tasks, left_out = questions.answerable(context)
    for name, reason in left_out.items():
        context.emit.log(f"{name} is left out: {reason}")
    dense = questions.ask_dense(context, tasks, answered)
    sizes = {name: text_bytes(windows, tokenizer, given[name]) for name, windows in texts.items()}
    for name, windows in texts.items():
        sums[name]["pruned"] = _pruned(context, windows, given[name], before[name][1], progress)
    samples.add_pruned(shared_written(context))
    pruned = questions.ask_pruned(context, tasks, answered)
    report = {
        name: {**_of_text(sums[name], sizes[name], context.seed(name)), "next_token": before[name][1].to_json()}
        for name in texts
    }
    for name, values in report.items():
        context.emit.metric(**{f"perplexity/{name}/{variant}": values[variant] for variant in VARIANTS})
    context.write_json(
        OUTPUT,
        {
            "perplexity": report,
            **_tasks(context, tasks, dense, pruned),
            "not_measured": left_out,
            "held_out": not context.recipe.evaluation,
            "sequence_length": context.recipe.scoring.sequence_length,
            "stride": context.recipe.judging.stride or context.recipe.scoring.sequence_length,
            "samples": samples.complete,
        },
    )
    if not samples.complete:
        context.emit.log("no sample texts: a streamed model would read all its weights for every token")


def _pruned(
    context: StageContext, windows: Tensor, given: Tensor, next_token: NextToken, progress: Callable[[int], None]
) -> LogLikelihood:
    def watch(_: str, first: int, hidden: Tensor, head: Head) -> None:
        next_token.compare(head, first, hidden)

    work = partial(likelihoods, windows=windows, given=given, progress=progress, watch=watch)
    return within_memory(context, sequences_at_once(context.device, windows.shape[1]), work, written=True)["dense"]


def _tasks(
    context: StageContext, tasks: Sequence[TaskData], dense: questions.Records, pruned: questions.Records
) -> dict[str, Any]:
    """Write the records, and return what the tasks say, each and together."""
    judging = context.recipe.judging
    if not tasks:
        return {"tasks": {}, "tasks_mean": None}
    found: dict[str, Any] = {}
    comparisons = []
    for task in tasks:
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
        texts[name] = text_windows(text, tokenizer, recipe.scoring.sequence_length, stride=recipe.judging.stride)
    return texts


def _of_text(sums: Mapping[str, LogLikelihood], size: int, seed: int) -> dict[str, Any]:
    for likelihood in sums.values():
        likelihood.text_bytes = size
    found: dict[str, Any] = {variant: sums[variant].perplexity for variant in VARIANTS}
    found["byte"] = {variant: sums[variant].byte_perplexity for variant in VARIANTS}
    found["ratio"] = ratio(found["pruned"], found["dense"])
    dense, pruned = sums["dense"], sums["pruned"]
    interval = perplexity_ratio(dense.window_nats, pruned.window_nats, dense.window_tokens, seed=seed)
    found["ratio_interval"] = None if interval is None else [interval.low, interval.high]
    found["cut_ratio"] = ratio(found["cut"], found["dense"])
    found["retained"] = ratio(found["dense"], found["pruned"])
    found["tokens"], found["bytes"], found["sequences"] = dense.tokens, size, len(dense.window_tokens)
    return found
