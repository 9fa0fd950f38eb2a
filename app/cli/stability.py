"""`streamline stability`: hold two models' answers, as other programs wrote them, against each other."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from app.cli.exits import UsageError
from app.cli.output import print_table, standard_output
from app.core import predictions
from app.core.predictions import CountTokens, PredictionsError
from app.core.stability import Comparison, Interval, compare, mean_of


def measure(dense: Path, pruned: Path, tokenizer: Path | None) -> dict[str, Any]:
    """Return every task's comparison and their mean, unrounded.

    Args:
        dense: a sample file of lm-evaluation-harness, or a folder of OpenCompass predictions.
        pruned: the same of the other model.
        tokenizer: directory of the models' tokenizer.json; sample files need it, unless they have token counts.

    Raises:
        UsageError: what is wrong with them.
    """
    for path in (dense, pruned):
        if not path.exists():
            raise UsageError(f"There is no file or folder {path}.")
    if dense.is_dir() != pruned.is_dir():
        raise UsageError("Name two sample files of lm-evaluation-harness, or two prediction folders of OpenCompass.")
    try:
        tasks = _folders(dense, pruned) if dense.is_dir() else _files(dense, pruned, tokenizer)
    except PredictionsError as error:
        raise UsageError(f"{error}.") from None
    return {
        "over": "prompt" if dense.is_dir() else "option",
        "tasks": {name: comparison.to_json() for name, comparison in tasks.items()},
        "mean": mean_of(list(tasks.values())).to_json(),
    }


def _folders(dense: Path, pruned: Path) -> dict[str, Comparison]:
    files = predictions.tasks_of(dense), predictions.tasks_of(pruned)
    if missing := sorted(set(files[0]) ^ set(files[1])):
        where = pruned if missing[0] in files[0] else dense
        raise PredictionsError(f"{where} has no predictions for the task {missing[0]}, which the other folder has")
    return {
        name: compare(
            *predictions.paired(
                predictions.read_opencompass(files[0][name]), predictions.read_opencompass(files[1][name]), name
            )
        )
        for name in files[0]
    }


def _files(dense: Path, pruned: Path, tokenizer: Path | None) -> dict[str, Comparison]:
    count = None if tokenizer is None else counter(tokenizer)
    name = predictions.task_name(dense)
    answers = predictions.paired(predictions.read_samples(dense, count), predictions.read_samples(pruned, count), name)
    return {name: compare(*answers)}


def counter(directory: Path) -> CountTokens:
    """Return how many tokens a continuation has behind its context, for the tokenizer in a model's directory.

    Raises:
        UsageError: there is none that can be read.
    """
    from tokenizers import Tokenizer

    file = directory / "tokenizer.json"
    if not file.is_file():
        raise UsageError(f"There is no tokenizer.json in {directory}; name the directory of either model.")
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises plain Exception
        raise UsageError(f"{file} cannot be read: {error}.") from None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    prefix = tokenizer.token_to_id(start) if (start := _start_token(directory)) else None
    encode: Callable[[str], list[int]] = lambda text: tokenizer.encode(text).ids  # noqa: E731
    return lambda context, option: predictions.continuation_tokens(encode, context, option, prefix)


def _start_token(directory: Path) -> str | None:
    """The token that stands in front of an empty context: bos, or eos where there is none."""
    try:
        config = json.loads((directory / "tokenizer_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    for name in ("bos_token", "eos_token"):
        token = config.get(name)
        token = token.get("content") if isinstance(token, dict) else token
        if isinstance(token, str):
            return token
    return None


def show(found: dict[str, Any], console: Console | None = None) -> None:
    """Print a table: a row per task, and the mean."""
    table = Table(box=None, padding=(0, 1, 0, 0))  # all of it at 80 columns, headings too
    table.add_column("task", overflow="fold")
    table.add_column("stability", no_wrap=True)
    for name in ("dense", "pruned", "retained", "right→\nwrong", "wrong→\nright", "KL"):
        table.add_column(name, justify="right", no_wrap=True)
    for name, task in found["tasks"].items():
        accuracy, flips = task["accuracy"], task["flips"]
        retained = accuracy["pruned"] / accuracy["dense"] if accuracy["dense"] else None
        table.add_row(
            name,
            _interval(task["stability"]),
            *(_share(value) for value in (accuracy["dense"], accuracy["pruned"], retained)),
            *(str(flips[key]) if flips else "" for key in ("right_to_wrong", "wrong_to_right")),
            "" if task["kl"] is None else f"{task['kl']:.4f}",
        )
    mean = found["mean"]
    if len(found["tasks"]) > 1:
        retained = mean["retained_accuracy"]
        shares = (mean["accuracy"]["dense"], mean["accuracy"]["pruned"], retained and retained["value"])
        table.add_row("mean", _interval(mean["stability"]), *map(_share, shares), "", "", "")
    print_table(table, console or standard_output())


def _interval(found: dict[str, float] | None) -> str:
    return "" if found is None else str(Interval(**found))


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.1%}"
