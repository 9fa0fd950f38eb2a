"""Count the tokens of a text, just until there are enough: is it long enough for the job?

Uses the model's tokenizer.json and the `tokenizers` library alone: the API needs neither torch nor transformers.
"""

import itertools
import json
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from app.datasets.inspection import Format

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_DOCUMENTS_PER_CALL = 64
_CHARACTERS_PER_PIECE = 1 << 18  # plain text is counted in pieces; a piece more or less cuts one token in two


class UnreadableTokenizer(Exception):  # noqa: N818 - named for what happened
    """The tokenizer.json is not one that the library understands."""


def count_tokens(path: Path, format_: Format, column: str, *, tokenizer: Path, enough: int, separators: bool) -> int:
    """Tokens of the text, or some number of at least `enough` where it has that many.

    Args:
        path: the data set.
        format_: how to read it.
        column: the field of a JSONL row that holds the text.
        tokenizer: a tokenizer.json that never changes (a blob).
        enough: counting stops here.
        separators: whether a token stands in front of each document (bos or eos).

    Raises:
        UnreadableTokenizer: the library does not understand it.
    """
    encoder = _load(tokenizer)
    rows = format_ == "jsonl"
    documents = _rows(path, column) if rows else _pieces(path)
    found = 1 if separators and not rows else 0
    while found < enough and (batch := list(itertools.islice(documents, _DOCUMENTS_PER_CALL if rows else 1))):
        found += sum(len(encoding.ids) for encoding in encoder.encode_batch_fast(batch, add_special_tokens=False))
        found += len(batch) if separators and rows else 0
    return found


def _rows(path: Path, column: str) -> Iterator[str]:
    with path.open("rb") as lines:
        for line in lines:
            if line.strip():
                yield json.loads(line)[column]


def _pieces(path: Path) -> Iterator[str]:
    with path.open(encoding="utf-8") as file:
        while piece := file.read(_CHARACTERS_PER_PIECE):
            yield piece


@lru_cache(maxsize=4)
def _load(path: Path) -> "Tokenizer":
    from tokenizers import Tokenizer

    try:
        tokenizer: Tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises plain Exception
        raise UnreadableTokenizer(str(error)) from None
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer
