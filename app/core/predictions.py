"""Read what other programs wrote about a model's answers: lm-evaluation-harness samples, OpenCompass predictions.

Sample files carry summed log-likelihoods and no token counts (those that this project writes do): a `CountTokens`
supplies them. OpenCompass' "PPL" is the mean negative log-likelihood over the whole prompt, not its exponential.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from app.core.stability import Answer

CountTokens = Callable[[str, str], int]
"""Context and continuation -> the continuation's tokens behind that context."""

Questions = dict[str, tuple[str, Answer]]
"""Question's id -> a hash of the question as far as the file has one, and the answer."""

_LABEL = "label: "


class PredictionsError(ValueError):
    """A file that cannot be used; the message says which, where and why."""


def read_samples(path: Path, count_tokens: CountTokens | None) -> Questions:
    """Read a sample file of lm-evaluation-harness (JSONL, a multiple-choice task).

    Args:
        path: the file.
        count_tokens: how long an option is; None where the file has `token_counts`.

    Raises:
        PredictionsError: not such a file, or token counts are needed.
    """
    found: Questions = {}
    for number, sample in _rows(path):
        where = f"{path} line {number}"
        try:
            identity = str(sample["doc_id"])
            asked = f"{sample.get('doc_hash')}/{sample.get('prompt_hash')}"
            if "acc" not in sample:
                metrics = ", ".join(map(str, sample.get("metrics", []))) or "none"
                raise PredictionsError(
                    f"{where} has no accuracy `acc` (metrics: {metrics}); give samples of a multiple choice"
                )
            answer = answer_of(sample, count_tokens)
            if not all(map(math.isfinite, answer.preference)):
                raise PredictionsError(f"{where}: the log-likelihood of question {identity} is not a finite number")
        except (KeyError, TypeError, ValueError, IndexError) as error:
            if isinstance(error, PredictionsError):
                raise
            if isinstance(error, KeyError):
                there = ", ".join(map(str, sample)) or "nothing"
                why = f"it has no field {error}; found: {there}. Give a file that lm_eval --log_samples wrote"
            else:
                why = f"{type(error).__name__}: {error}"
            raise PredictionsError(f"{where} is no sample of lm-evaluation-harness: {why}") from None
        if identity in found:
            raise PredictionsError(
                f"{where}: question {identity} is there twice; give a file of one run and one filter"
            )
        found[identity] = asked, answer
    if not found:
        raise PredictionsError(f"{path} has no samples")
    return found


def answer_of(sample: Mapping[str, Any], count_tokens: CountTokens | None = None) -> Answer:
    """Return what a sample of lm-evaluation-harness says about one question.

    Args:
        sample: as the harness writes it; what was generated has a score and no options.
        count_tokens: how long an option is; None where the sample has `token_counts`.

    Raises:
        KeyError, TypeError, ValueError, IndexError: it is none.
        PredictionsError: token counts are needed, or do not fit.
    """
    score = float(sample["acc"] if "acc" in sample else sample[sample["metrics"][0]])
    arguments = sample["arguments"]
    if isinstance(arguments, Mapping):
        arguments = [(request["arg_0"], request["arg_1"]) for request in arguments.values()]
    if not all(isinstance(option, str) for _, option in arguments):
        return Answer(score)
    # One response per option, each (log-likelihood, is greedy), within a list of repeats.
    sums = [float(responses[0][0]) for responses in sample["resps"]]
    if "acc_mutual_info" in sample:  # behind the options come those without their context
        sums, arguments = sums[: len(sums) // 2], arguments[: len(arguments) // 2]
    if "prompt_nll" in sample:
        return Answer(score, tuple(map(float, sample["prompt_nll"])), tuple(sums))
    counts = [int(count) for count in sample.get("token_counts", ())]
    if not counts:
        if count_tokens is None:
            raise PredictionsError("the samples have no token counts; name the model's tokenizer with --tokenizer DIR")
        counts = [count_tokens(context, option) for context, option in arguments]
    if len(counts) != len(sums) or min(counts) < 1:
        raise PredictionsError(f"question {sample.get('doc_id')} has {len(sums)} options and token counts {counts}")
    return Answer(score, tuple(-total / count for total, count in zip(sums, counts, strict=True)), tuple(sums))


def read_opencompass(path: Path) -> Questions:
    """Read a prediction file of OpenCompass' PPL inferencer: `{"0": {"prediction", "gold", "label: X": {"PPL"}}}`.

    Raises:
        PredictionsError: not such a file.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise PredictionsError(f"{path} cannot be read: {error}") from None
    if not isinstance(data, dict) or not data:
        raise PredictionsError(f"{path} has no questions; OpenCompass predictions are an object of question -> answer")
    found: Questions = {}
    for identity, row in data.items():
        where = f"{path}, question {identity}"
        if not isinstance(row, dict) or not {"prediction", "gold"} <= set(row):
            there = ", ".join(row) if isinstance(row, dict) else type(row).__name__
            raise PredictionsError(f"{where} needs `prediction` and `gold`; there: {there}")
        options = {name: value for name, value in row.items() if name.startswith(_LABEL)}
        try:
            nll = tuple(float(options[name]["PPL"]) for name in sorted(options))
        except (KeyError, TypeError, ValueError):
            raise PredictionsError(f"{where} needs a number `PPL` in each `{_LABEL}X`") from None
        if len(nll) < 2 or not all(map(math.isfinite, nll)):
            raise PredictionsError(f"{where} needs two or more `{_LABEL}X` with a finite `PPL`; there: {len(nll)}")
        # Labels may be integers in one place and strings in another.
        right = str(row["prediction"]) == str(row["gold"])
        found[identity] = str(sorted(options)), Answer(float(right), nll, tuple(-value for value in nll))
    return found


def paired(dense: Questions, pruned: Questions, name: str) -> tuple[list[Answer], list[Answer]]:
    """Return both models' answers in the same order.

    Raises:
        PredictionsError: they are not about the same questions.
    """
    if missing := sorted(set(dense) ^ set(pruned)):
        side = "dense" if missing[0] in dense else "pruned"
        raise PredictionsError(
            f"{name}: {len(missing)} questions are in one file only (question {missing[0]} only of the {side} model); "
            "give two runs of the same task with the same limit"
        )
    for identity, (asked, answer) in dense.items():
        other_asked, other = pruned[identity]
        if asked != other_asked or len(answer.nll) != len(other.nll):
            raise PredictionsError(
                f"{name}: question {identity} is not the same in both files; give the same task twice"
            )
    return [answer for _, answer in dense.values()], [pruned[identity][1] for identity in dense]


def tasks_of(directory: Path) -> dict[str, Path]:
    """Return task -> file of an OpenCompass prediction folder.

    Raises:
        PredictionsError: there are none.
    """
    found = {path.stem: path for path in sorted(directory.glob("*.json"))}
    if not found:
        raise PredictionsError(f"{directory} has no TASK.json; name the folder that holds the predictions of one model")
    return found


def task_name(path: Path) -> str:
    """Return the task of a sample file, by its name: ``samples_piqa_2026-...jsonl`` or ``piqa.dense.jsonl``."""
    stem = path.name.removesuffix(".jsonl")
    stem = re.sub(r"_\d{4}-\d{2}-\d{2}T.*$", "", stem.removeprefix("samples_"))
    return stem.removesuffix(".dense").removesuffix(".pruned")


def _rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        with path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    row = json.loads(line)
                    if not isinstance(row, dict):
                        raise PredictionsError(f"{path} line {number} is not a JSON object")
                    yield number, row
    except OSError as error:
        raise PredictionsError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise PredictionsError(f"{path} is not UTF-8 text ({error.reason})") from None
    except json.JSONDecodeError as error:
        raise PredictionsError(f"{path} is not JSON lines: {error.msg}") from None


def continuation_tokens(
    encode: Callable[[str], Sequence[int]], context: str, continuation: str, prefix: int | None
) -> int:
    """Return the tokens of a continuation behind its context, as lm-evaluation-harness counts them.

    White space at the context's end belongs to the continuation, and both are encoded together, because a token can
    begin in one and end in the other. Behind an empty context stands the start token, which is not predicted.

    Args:
        encode: text -> token ids, with the special tokens that the tokenizer adds by itself.
        context: what is given.
        continuation: what is scored.
        prefix: id of the start token.
    """
    if not context:
        ids = encode(continuation)
        return len(ids) - (1 if prefix is not None and ids and ids[0] == prefix else 0)
    return len(encode(context + continuation)) - len(encode(context.rstrip()))
