"""From text files to token windows: documents joined by bos (or eos), cut into windows, without overlap by default."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from worker.engine.context import StageContext
from worker.engine.errors import EngineError
from worker.engine.recipe import Text

HELD_OUT_SHARE = 10
"""One window in ten is held out of the calibration text where no evaluation text is named."""

_DOCUMENTS_PER_CALL = 256
_KINDS: Mapping[type, str] = {
    bool: "true or false", int: "a number", float: "a number", list: "a list", dict: "an object", type(None): "null",
    str: "a text",
}  # fmt: skip


def read_documents(path: Path, column: str) -> Iterator[str]:
    """Yield the documents of a JSONL file (the column of each row) or of a plain text file (the whole of it).

    Raises:
        EngineError: `bad_text` naming file, line and what is there instead.
    """
    try:
        if path.suffix != ".jsonl":
            if text := path.read_text(encoding="utf-8"):
                yield text
            return
        with path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    yield _document(path, number, line, column)
    except UnicodeDecodeError as error:
        raise EngineError(
            "bad_text", f"{path.name} is not UTF-8 text ({error.reason}); convert it and retry"
        ) from error
    except OSError as error:
        raise EngineError("bad_text", f"{path} cannot be read: {error.strerror}") from error


def _document(path: Path, number: int, line: str, column: str) -> str:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise EngineError("bad_text", f"{path.name} line {number} is not JSON: {error.msg}") from error
    if isinstance(row, dict) and column in row and not isinstance(row[column], str):
        found = _KINDS.get(type(row[column]), type(row[column]).__name__)
        raise EngineError(
            "bad_text",
            f"{path.name} line {number}: column {column!r} holds {found}, not text; mend the row or name another "
            "column",
        )
    if not isinstance(row, dict) or column not in row:
        found = ", ".join(row) if isinstance(row, dict) else _KINDS.get(type(row), type(row).__name__)
        raise EngineError("bad_text", f"{path.name} line {number} has no text in column {column!r}; found: {found}")
    text: str = row[column]
    return text


def separator_token(tokenizer: Any) -> int | None:
    """Return the token that joins documents: bos, else eos, else none."""
    for token in (tokenizer.bos_token_id, tokenizer.eos_token_id):
        if isinstance(token, int):
            return token
    return None


def token_windows(
    documents: Iterable[str],
    tokenizer: Any,
    length: int,
    *,
    limit: int | None = None,
    name: str = "the text",
    to_lower: str = "scoring.sequence_length",
    stride: int | None = None,
) -> Tensor:
    """Return windows of token ids [windows, length], int32; the remainder of less than a stride is dropped.

    Args:
        documents: texts; each is preceded by the separator token.
        tokenizer: a transformers tokenizer; no special tokens but the separator are added.
        length: tokens per window.
        limit: windows at most; reading stops there.
        name: what errors call the text.
        to_lower: what errors call the length.
        stride: tokens from the start of a window to that of the next; None: `length`, so that windows do not overlap.

    Raises:
        EngineError: `text_too_short`, with the counts, where not one window comes together.
    """
    separator = separator_token(tokenizer)
    head = [] if separator is None else [separator]
    step = length if stride is None else stride
    wanted = None if limit is None else length + (limit - 1) * step
    parts: list[Tensor] = []
    count = 0
    for batch in _batched(documents, _DOCUMENTS_PER_CALL):
        encoded = tokenizer(batch, add_special_tokens=False, verbose=False)["input_ids"]
        ids = torch.tensor([token for document in encoded for token in (*head, *document)], dtype=torch.int32)
        parts.append(ids)
        count += len(ids)
        if wanted is not None and count >= wanted:
            break
    windows = 0 if count < length else 1 + (count - length) // step
    if windows == 0:
        raise EngineError(
            "text_too_short",
            f"{name} has {count} tokens, too few for one sequence of {length}; give more text or lower {to_lower}",
        )
    return torch.cat(parts).unfold(0, length, step)[:limit]


def _batched(items: Iterable[str], size: int) -> Iterator[list[str]]:
    iterator = iter(items)
    while batch := list(itertools.islice(iterator, size)):
        yield batch


def text_windows(
    source: Text, tokenizer: Any, length: int, *, limit: int | None = None, stride: int | None = None
) -> Tensor:
    """Return the windows of a named text [windows, length], int32; see `token_windows`."""
    assert source.path is not None
    documents = read_documents(Path(source.path), source.column)
    return token_windows(documents, tokenizer, length, limit=limit, name=source.name, stride=stride)


def context_tokens(windows: Tensor, stride: int | None) -> Tensor:
    """Return how many tokens at the start of each window [windows, length] are context only, [windows].

    So that each token of the text is predicted once: the first of a window has nothing before it, and what overlaps
    with the window before was predicted there.
    """
    overlap = 0 if stride is None else windows.shape[1] - stride
    given = torch.full((len(windows),), max(1, overlap))
    given[:1] = 1
    return given


def _all_calibration_windows(context: StageContext, tokenizer: Any) -> Tensor:
    recipe = context.recipe
    length = recipe.scoring.sequence_length
    limit = max(1, recipe.replacement.tokens // length)
    if recipe.calibration.path is not None:
        return text_windows(recipe.calibration, tokenizer, length, limit=limit)
    documents = read_documents(context.self_text, "text")
    return token_windows(documents, tokenizer, length, limit=limit, name="the text sampled from the model")


def calibration_windows(context: StageContext, tokenizer: Any) -> Tensor:
    """Return the windows to score and train on [windows, length], int32: at most ``replacement.tokens`` tokens.

    Where the recipe names no evaluation text, the last tenth is kept back for `held_out_windows`.

    Raises:
        EngineError: `text_too_short` where nothing is left to train on.
    """
    windows = _all_calibration_windows(context, tokenizer)
    if context.recipe.evaluation:
        return windows
    kept = len(windows) - _held_out_count(windows)
    if kept == 0:
        raise EngineError(
            "text_too_short",
            f"{context.recipe.calibration.name} makes {len(windows)} sequence of "
            f"{context.recipe.scoring.sequence_length} tokens, and one is held out to evaluate with; give text for at "
            "least two, or name an evaluation text",
        )
    return windows[:kept]


def held_out_windows(context: StageContext, tokenizer: Any) -> Tensor:
    """Return the windows of the calibration text that were kept back [windows, length], int32; never trained on."""
    windows = _all_calibration_windows(context, tokenizer)
    return windows[len(windows) - _held_out_count(windows) :]


def _held_out_count(windows: Tensor) -> int:
    return max(1, len(windows) // HELD_OUT_SHARE)
