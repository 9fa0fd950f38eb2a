"""Look through an uploaded file once: is it text, is it JSONL, and which columns hold text in every row?"""

import codecs
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from app.errors.references import BadDataset

Format = Literal["jsonl", "text"]
_CHUNK = 1 << 20
MAX_LINE_BYTES = 32 << 20
"""Longest line of a JSONL file: a row is held in memory as a whole, here and in the engine."""


@dataclass(frozen=True)
class Contents:
    """What a data set holds."""

    format: Format
    rows: int
    """Objects of a JSONL file, lines of a text."""
    columns: tuple[str, ...]
    """Fields that hold a string in every row; empty for text."""


def inspect(path: Path, filename: str) -> Contents:
    """Tell the format by the name and the first line, and check all of the content against it.

    Raises:
        BadDataset: empty, not UTF-8, a row that is no JSON object, or no column with text in every row.
    """
    with path.open("rb") as file:
        head = file.read(4)
    if not head:
        raise BadDataset("The file is empty. Upload JSONL or plain text.", pointer="/file")
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF8)):
        raise BadDataset(
            "The file begins with a byte order mark. Save it as UTF-8 without one and upload it again.",
            pointer="/file",
        )
    named = filename.lower().endswith((".jsonl", ".ndjson", ".json"))
    return _jsonl(path) if named or _begins_with_object(path) else _text(path)


def _begins_with_object(path: Path) -> bool:
    for line in _lines(path):
        if line.strip():
            try:
                return isinstance(json.loads(line), dict)
            except (ValueError, RecursionError):
                return False
    return False


def _lines(path: Path) -> Iterator[bytes]:
    """The lines of the file; the longest one is cut at one byte more than a line may have."""
    with path.open("rb") as file:
        while line := file.readline(MAX_LINE_BYTES + 1):
            yield line


def _jsonl(path: Path) -> Contents:
    rows = 0
    columns: dict[str, None] | None = None
    for number, line in enumerate(_lines(path), start=1):
        if not line.strip():
            continue
        rows += 1
        texts = _row(number, line)
        # In the order of the first row.
        columns = texts if columns is None else {name: None for name in columns if name in texts}
    if not columns:
        what = "no rows" if rows == 0 else "no column that holds a string in every row"
        raise BadDataset(
            f"The file has {what}. Each line must be a JSON object with the text under one and the same name.",
            pointer="/file",
        )
    return Contents("jsonl", rows, tuple(columns))


def _row(number: int, line: bytes) -> dict[str, None]:
    if len(line) > MAX_LINE_BYTES:
        raise BadDataset(
            f"Line {number} is longer than {MAX_LINE_BYTES:,} bytes. Split the document over several rows.",
            pointer="/file",
        )
    try:
        row = json.loads(line)
    except UnicodeDecodeError as error:
        raise _not_utf8(f"line {number}", error) from None
    except (ValueError, RecursionError) as error:
        reason = error.msg if isinstance(error, json.JSONDecodeError) else "it cannot be parsed"
        raise BadDataset(
            f"Line {number} is not JSON: {reason}. A JSONL file has one JSON object on each line.", pointer="/file"
        ) from None
    if not isinstance(row, dict):
        raise BadDataset(
            f"Line {number} is not a JSON object. A JSONL file has one JSON object on each line.", pointer="/file"
        )
    return {name: None for name, value in row.items() if isinstance(value, str) and _encodable(name + value)}


def _encodable(text: str) -> bool:
    # JSON can spell half a surrogate pair, which no tokenizer takes and no database stores.
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in text


def _text(path: Path) -> Contents:
    decoder = codecs.getincrementaldecoder("utf-8")()
    lines, last, visible = 0, "\n", False
    with path.open("rb") as file:
        try:
            while chunk := file.read(_CHUNK):
                text = decoder.decode(chunk)
                lines += text.count("\n")
                visible = visible or bool(text.strip())
                last = text[-1:] or last
            decoder.decode(b"", final=True)
        except UnicodeDecodeError as error:
            raise _not_utf8("the file", error) from None
    if not visible:
        raise BadDataset("The file holds only white space. Upload JSONL or plain text.", pointer="/file")
    return Contents("text", lines + (last != "\n"), ())


def _not_utf8(where: str, error: UnicodeDecodeError) -> BadDataset:
    return BadDataset(
        f"In {where} a byte is not UTF-8 ({error.reason}). Convert the file, for example with iconv -t UTF-8.",
        pointer="/file",
    )
