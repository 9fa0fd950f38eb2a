"""The catalogue of tasks, and the rows that they are made of."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from app.core.tasks import (
    GROUPS,
    OWN,
    PAPER_SUITE,
    TASKS,
    ColumnsMissing,
    NoUsableQuestion,
    TaskDataError,
    available,
    by_definition,
    known_tasks,
    nearest,
    read_rows,
    right_option,
)


def write(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("label", "place"),
    [(0, 0), (2, 2), ("1", 1), ("C", 2), ("red", 0), (3, None), (-1, None), ("D", None), (None, None), (True, None)],
)
def test_the_right_option_is_named_by_place_letter_or_text(label: Any, place: int | None) -> None:
    assert right_option(["red", "green", "blue"], label) == place


@pytest.mark.parametrize("options", [["one"], [], "ab", ["a", ""], ["a", 2], None])
def test_less_than_two_texts_are_no_choice(options: Any) -> None:
    assert right_option(options, 0) is None


def test_a_missing_column_is_named_beside_those_that_are_there(tmp_path: Path) -> None:
    path = write(tmp_path / "piqa.jsonl", {"goal": "g", "sol1": "a", "sol2": "b", "label": 0}, {"goal": "g", "x": 1})
    with pytest.raises(ColumnsMissing, match=r"line 2 lacks sol1, sol2, label; there: goal, x"):
        read_rows(path, TASKS["piqa"])


@pytest.mark.parametrize("asked", [{"question": "q"}, {"context": "c"}])
def test_ones_own_rows_need_a_question_or_a_context(asked: dict[str, str], tmp_path: Path) -> None:
    own = by_definition(OWN)
    row = {"choices": ["a", "b"], "label": 0}
    assert read_rows(write(tmp_path / "mine.jsonl", asked | row), own) == [asked | row]
    with pytest.raises(ColumnsMissing, match=r"lacks question \(or context\)"):
        read_rows(write(tmp_path / "mine.jsonl", row), own)


@pytest.mark.parametrize(
    ("content", "error"),
    [(b"", NoUsableQuestion), (b"[1]\n", TaskDataError), (b"{\n", TaskDataError), (b"\xff\n", TaskDataError)],
)
def test_what_is_no_rows_is_refused(content: bytes, error: type[Exception], tmp_path: Path) -> None:
    (path := tmp_path / "c3.jsonl").write_bytes(content)
    with pytest.raises(error):
        read_rows(path, TASKS["c3"])


def test_an_unknown_name_gets_the_nearest_ones() -> None:
    assert nearest("piqua")[0] == "piqa"
    assert nearest("blimp_passive")[0].startswith("blimp_passive")
    assert nearest("ds-12", ["ds-123"]) == ["ds-123"]
    assert nearest("zzzzzz"), "never nothing"


def test_a_mirror_offers_the_tasks_whose_files_it_has(tmp_path: Path) -> None:
    (tmp_path / "blimp").mkdir()
    write(tmp_path / "blimp" / "passive_1.jsonl", {})
    write(tmp_path / "piqa.jsonl", {})
    assert list(available(GROUPS["blimp"], tmp_path)) == ["blimp_passive_1"]
    assert list(available(PAPER_SUITE, tmp_path)) == ["piqa"]
    assert available(PAPER_SUITE, None) == {}


def test_the_papers_suite_and_groups_are_tasks() -> None:
    assert {*PAPER_SUITE, *GROUPS["blimp"]} <= set(TASKS)
    assert len(GROUPS["blimp"]) == 67
    assert "blimp" in known_tasks()
    assert "blimp_passive_1" not in known_tasks()
