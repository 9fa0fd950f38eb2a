"""What reading calibration text promises."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from tests.unit.worker.engine.tiny_models import save_tokenizer
from worker.engine.errors import EngineError
from worker.engine.text import read_documents, token_windows


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    path = tmp_path_factory.mktemp("tokenizer")
    save_tokenizer(path)
    return AutoTokenizer.from_pretrained(path)


def test_documents_are_joined_by_bos_and_cut_without_overlap(tokenizer: Any) -> None:
    windows = token_windows(["w2 w3 w4", "w5 w6"], tokenizer, 3)
    assert windows.tolist() == [[0, 2, 3], [4, 0, 5]]
    assert windows.dtype == torch.int32


def test_without_bos_documents_are_joined_by_eos_or_by_nothing(tokenizer: Any, tmp_path: Path) -> None:
    save_tokenizer(tmp_path)
    other = AutoTokenizer.from_pretrained(tmp_path)
    other.bos_token = None
    other.eos_token = "<pad>"
    assert token_windows(["w2", "w3"], other, 4).tolist() == [[1, 2, 1, 3]]
    other.eos_token = None
    assert token_windows(["w2", "w3"], other, 2).tolist() == [[2, 3]]


@given(counts=st.lists(st.integers(0, 30), min_size=1, max_size=20), length=st.integers(1, 20), limit=st.integers(1, 9))
def test_windows_are_the_stream_up_to_the_limit(tokenizer: Any, counts: list[int], length: int, limit: int) -> None:
    documents = [" ".join(f"w{2 + i % 60}" for i in range(count)) for count in counts]
    stream = [token for count in counts for token in (0, *(2 + i % 60 for i in range(count)))]
    full = len(stream) // length
    if full == 0:
        with pytest.raises(EngineError, match=f"has {len(stream)} tokens"):
            token_windows(documents, tokenizer, length)
        return
    windows = token_windows(documents, tokenizer, length, limit=limit)
    assert windows.flatten().tolist() == stream[: min(full, limit) * length]


def test_text_too_short_for_one_sequence_is_refused_with_the_counts(tokenizer: Any) -> None:
    with pytest.raises(EngineError, match="stories has 3 tokens, too few for one sequence of 8") as caught:
        token_windows(["w2 w3"], tokenizer, 8, name="stories")
    assert caught.value.code == "text_too_short"


def test_jsonl_rows_give_their_column_and_plain_text_is_one_document(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"story": "a b"}\n\n{"story": "c", "text": "x"}\n')
    plain = tmp_path / "plain.txt"
    plain.write_text("a\n\nb\n")
    assert list(read_documents(rows, "story")) == ["a b", "c"]
    assert list(read_documents(plain, "story")) == ["a\n\nb\n"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"not json\n", "line 1 is not JSON"),
        (b'{"other": 1, "more": 2}\n', "line 1 has no text in column 'text'; found: other, more"),
        (b'{"text": 5}\n', "line 1: column 'text' holds a number, not text; mend the row or name another column"),
        (b'{"text": null}\n', "line 1: column 'text' holds null, not text"),
        (b'["a"]\n', "line 1 has no text in column 'text'; found: a list"),
        (b'{"text": "a"}\n{"text": 7}\n', "line 2: column 'text' holds a number"),
        (b'{"text": "\xff"}\n', "not UTF-8"),
    ],
)
def test_a_bad_file_is_named_with_line_and_reason(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content)
    with pytest.raises(EngineError, match=message) as caught:
        list(read_documents(path, "text"))
    assert caught.value.code == "bad_text"
    assert "rows.jsonl" in caught.value.detail


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"nowhere\.jsonl cannot be read"):
        list(read_documents(tmp_path / "nowhere.jsonl", "text"))


def test_reading_stops_when_the_limit_is_reached(tokenizer: Any) -> None:
    def documents() -> Any:
        for _ in range(256):
            yield "w2 w3"
        raise AssertionError("read past the limit")

    assert len(token_windows(documents(), tokenizer, 8, limit=2)) == 2


def test_unusual_line_ends_inside_json_strings_do_not_split_rows(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"text": "a\u2028b\x85c"}, ensure_ascii=False) + "\n", encoding="utf-8")
    assert list(read_documents(path, "text")) == ["a\u2028b\x85c"]
