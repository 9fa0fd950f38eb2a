"""The tasks that the harness brings run on files of ours: by its own prompts, without its data set's home."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from app.core.task_rows import read_questions
from app.core.tasks import TASKS, ColumnsMissing, NoUsableQuestion, TooFewQuestions, by_definition, find, nearest
from worker.engine.errors import EngineError
from worker.engine.evaluation.definitions import load_task
from worker.engine.recipe import TaskData

SCIQ = {
    "support": " Plants make sugar.", "question": "What do plants make?", "distractor1": "salt", "distractor2": "iron",
    "distractor3": "gold", "correct_answer": "sugar",
}  # fmt: skip


def write(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def loaded(name: str, path: Path) -> Any:
    task = load_task(TaskData(name, name, str(path)))
    task.build_all_requests()
    return task


def test_a_task_of_the_harness_asks_its_own_prompt(tmp_path: Path) -> None:
    task = loaded("sciq", write(tmp_path / "sciq.jsonl", SCIQ))
    prompt = "Plants make sugar.\nQuestion: What do plants make?\nAnswer:"
    assert [one.args for one in task.instances] == [(prompt, f" {word}") for word in ("salt", "iron", "gold", "sugar")]
    scores = task.process_results(task.eval_docs[0], [(-3.0, False), (-2.0, False), (-4.0, False), (-1.0, True)])
    assert scores["acc"] == 1.0


def test_a_subject_of_the_harness_mmlu_is_a_task(tmp_path: Path) -> None:
    row = {"question": " Q? ", "choices": ["a", "b", "c", "d"], "answer": 2, "subject": "anatomy"}
    task = loaded("mmlu_anatomy", write(tmp_path / "mmlu_anatomy.jsonl", row))
    prompt, option = task.instances[2].args
    assert prompt.startswith("The following are multiple choice questions (with answers) about anatomy.\n\nQ?\nA. a\n")
    assert option == " C"


def test_definitions_that_make_their_questions_by_code_work_too(tmp_path: Path) -> None:
    row = {"context": "A.", "question": "Why?", "options": ["p", "q", "r", "s"], "label": "b"}
    task = loaded("logiqa", write(tmp_path / "logiqa.jsonl", row))
    assert "Passage: A." in task.instances[0].args[0]
    assert task.doc_to_target(task.eval_docs[0]) == 1


def test_a_missing_column_or_split_is_named(tmp_path: Path) -> None:
    sciq = by_definition("sciq")
    without = {name: value for name, value in SCIQ.items() if name != "support"}
    with pytest.raises(ColumnsMissing, match="line 1 lacks support; there: question, distractor1"):
        read_questions(write(tmp_path / "a.jsonl", without), sciq)
    with pytest.raises(NoUsableQuestion, match="no row of the split 'test'"):
        read_questions(write(tmp_path / "b.jsonl", SCIQ | {"_split": "train"}), sciq)


def test_examples_come_from_the_rows_of_their_split(tmp_path: Path) -> None:
    name = "legalbench_abercrombie"
    asked = {"text": "The mark Salt for salt.", "answer": "generic"}
    shown = [{"text": f"The mark M{n}.", "answer": "fanciful", "_split": "train"} for n in range(5)]
    with pytest.raises(TooFewQuestions, match="5 answered examples .* 4 different rows of the split 'train', and 5"):
        read_questions(write(tmp_path / "few.jsonl", asked, *shown[:4]), by_definition(name))
    task = loaded(name, write(tmp_path / "enough.jsonl", asked, *shown))
    (only,) = task.instances
    assert only.args[0].count("The mark M") == 5
    assert "Salt for salt" in only.args[0].split("The mark")[-1]


def test_rows_that_the_harness_makes_nothing_of_are_an_error_of_the_data(tmp_path: Path) -> None:
    path = write(tmp_path / "logiqa.jsonl", {"options": [1, 2], "text": "no question"})
    with pytest.raises(EngineError) as found:
        loaded("logiqa", path)
    assert found.value.code == "bad_task_data"


def test_names_of_the_harness_are_found_and_ours_go_first() -> None:
    assert find("piqa") is TASKS["piqa"]
    assert find("nothing_of_the_kind") is None
    assert "mmlu_anatomy" in nearest("mmlu_anatomi")


def test_the_index_is_that_of_the_installed_harness() -> None:
    """By one directory, since the whole harness takes a while to read."""
    import lm_eval.tasks

    root = Path(lm_eval.tasks.__file__).parent
    manager = lm_eval.tasks.TaskManager(include_path=str(root / "mmlu" / "default"), include_defaults=False)
    assert len(manager.all_subtasks) == 57
    for name in manager.all_subtasks:
        found = by_definition(name)
        assert (found.kind, found.split, found.directory) == ("choice", "test", "mmlu/default")
