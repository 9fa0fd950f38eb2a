"""Each task's definition makes the harness' standard prompt of a row as its file has it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from lm_eval.tasks import TaskManager

from app.core.tasks import OWN, TASKS, NoUsableQuestion, TaskDataError
from worker.engine.evaluation.definitions import DEFINITIONS

LETTERS = {"A": "a1", "B": "b1", "C": "c1", "D": "d1"}
CHOICES = {"choices": ["yes", "no"], "gold": 1}

# name, row, context, continuations, place of the right one
CASES: list[tuple[str, dict[str, Any], str, list[str], int]] = [
    (
        "piqa", {"goal": "Open", "sol1": "turn", "sol2": "eat", "label": 0},
        "Question: Open\nAnswer:", [" turn", " eat"], 0,
    ),
    (
        "hellaswag",
        {"activity_label": "Vault", "ctx_a": "A man [title] runs.", "ctx_b": "he then", "label": 1,
         "endings": ["jumps [x]. ", "sleeps."]},
        "Vault: A man. runs. He then", [" jumps .", " sleeps."], 1,
    ),
    (
        "race", {"article": "Ice.", "question": "What?", "options": ["a", "b", "c"], "answer": "C"},
        "Article: Ice.\n\nWhat?", [" a", " b", " c"], 2,
    ),
    (
        "blimp_passive_1", {"sentence_good": "It is.", "sentence_bad": "It are."},
        "", [" It is.", " It are."], 0,
    ),
    ("boolq", {"query": "Passage: P.\nQuestion: q?", **CHOICES}, "P.\nQuestion: q?\nAnswer:", [" yes", " no"], 1),
    ("arc_easy", {"query": "Question: Q", **CHOICES}, "Question: Q\nAnswer:", [" yes", " no"], 1),
    ("openbookqa", {"query": "Fog is around", **CHOICES}, "Fog is around", [" yes", " no"], 1),
    ("copa", {"query": "It rained, therefore", **CHOICES}, "It rained, therefore", [" yes", " no"], 1),
    (
        "commonsenseqa",
        {"question": {"stem": "Where? ", "choices": [{"label": x, "text": x * 2} for x in "ABCDE"]}, "answerKey": "D"},
        "Question: Where?\nA. AA\nB. BB\nC. CC\nD. DD\nE. EE\nAnswer:", [" A", " B", " C", " D", " E"], 3,
    ),
    (
        "mmlu", {"subject": "high_school_physics", "question": " Q ", "choices": ["a1", "b1", "c1", "d1"], "answer": 2},
        "The following are multiple choice questions (with answers) about high school physics.\n\n"
        "Q\nA. a1\nB. b1\nC. c1\nD. d1\nAnswer:", [" A", " B", " C", " D"], 2,
    ),
    (
        "cmmlu", {"subject": "nutrition", "Question": "Q", "Answer": "B", **LETTERS},
        "以下是关于营养学的单项选择题，请直接给出正确答案的选项。\n\nQ\nA. a1\nB. b1\nC. c1\nD. d1\n答案：",
        [" A", " B", " C", " D"], 1,
    ),
    (
        "c3",
        {"document": ["男：好。", "女：好。"],
         "questions": [{"question": "谁?", "choice": ["男", "女"], "answer": "女"}]},
        "文章：男：好。 女：好。\n问题：谁?\n答案：", ["男", "女"], 1,
    ),
    (
        "cmnli", {"sentence1": "他来了", "sentence2": "有人来", "label": "neutral"},
        "语句一：“他来了”\n语句二：“有人来”\n请问这两句话是什么关系？\n", ["蕴含", "无关", "矛盾"], 1,
    ),
    (
        "chid", {"content": "他#idiom#。", "candidates": ["一心一意", "三心二意"], "answer": 1},
        "以下句子是否通顺？\n", ["他一心一意。\n这个句子是通顺的。", "他三心二意。\n这个句子是通顺的。"], 1,
    ),
    (
        "story_cloze", {"context": "One day.", "sep": "\n\n", "choices": ["He ran.", "She sat."], "label": 1},
        "One day.\n\n", ["He ran.", "She sat."], 1,
    ),
    (OWN, {"question": "Up?", "choices": ["sky", "sea"], "label": "B"}, "Question: Up?\nAnswer: ", ["sky", "sea"], 1),
    (OWN, {"context": "I see", "choices": ["you", "me"], "label": "me"}, "I see ", ["you", "me"], 1),
    (OWN, {"context": "I", "sep": "", "choices": ["'m", "'d"], "label": 0}, "I", ["'m", "'d"], 0),
]  # fmt: skip


def loaded(name: str, directory: Path, *rows: dict[str, Any]) -> Any:
    path = directory / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    definitions = TaskManager(include_path=str(DEFINITIONS), include_defaults=False, metadata={"path": str(path)})
    task: Any = definitions.load([name])["tasks"][name]
    task.set_fewshot_seed(0)
    return task


@pytest.mark.parametrize(("name", "row", "context", "options", "gold"), CASES)
def test_a_row_becomes_the_standard_prompt(
    name: str, row: dict[str, Any], context: str, options: list[str], gold: int, tmp_path: Path
) -> None:
    task = loaded(name, tmp_path, row)
    task.build_all_requests()
    assert [request.args for request in task.instances] == [(context, option) for option in options]
    doc = task.eval_docs[0]
    assert task.doc_to_target(doc) == gold
    right = [(-1.0 if place == gold else -2.0, False) for place in range(len(options))]
    assert task.process_results(doc, right)["acc"] == 1.0


@pytest.mark.parametrize("name", ["wsc273", "winogrande"])
def test_partial_scoring_has_one_continuation_behind_each_option(name: str, tmp_path: Path) -> None:
    row = {"context_options": ["It is Ann", "It is Bob"], "continuation": "who won.", "gold": 1}
    task = loaded(name, tmp_path, row)
    task.build_all_requests()
    assert [request.args for request in task.instances] == [("It is Ann", " who won."), ("It is Bob", " who won.")]
    assert task.process_results(task.eval_docs[0], [(-2.0, False), (-1.0, False)])["acc"] == 1.0


def test_written_answers_are_read_as_the_harness_reads_them(tmp_path: Path) -> None:
    rows = [{"question": f"{n}+1?", "answer": f"So {n + 1}.\n#### {n + 1}"} for n in range(7)]
    task = loaded("gsm8k", tmp_path, *rows)
    task.build_all_requests(limit=1)
    prompt, options = task.instances[0].args
    assert prompt.endswith("#### 6\n\nQuestion: 0+1?\nAnswer:"), "five other questions, then this one"
    assert prompt.count("Question:") == 6
    assert options["until"][0] == "Question:"
    task.instances[0].resps = [" It is $1."]
    task.apply_filters()
    assert task.process_results(rows[0], [task.instances[0].filtered_resps["flexible-extract"]])["exact_match"] == 1

    yes = [{"question": f"q{n}?", "answer": n == 0} for n in range(7)]
    task = loaded("strategyqa", tmp_path, *yes)
    task.build_all_requests(limit=1)
    assert task.instances[0].args[0].endswith("Question: q0?\nAnswer (yes or no):")
    task.instances[0].resps = [" Yes, it is"]
    task.apply_filters()
    assert task.process_results(yes[0], [task.instances[0].filtered_resps["first-word"]])["exact_match"] == 1

    news = {"document": "It rained.", "summary": "Rain fell today"}
    task = loaded("xsum", tmp_path, news)
    assert task.process_results(news, [" Rain fell today\n"])["rougeL"] == 1.0
    assert 0 < task.process_results(news, ["Rain stopped"])["rougeL"] < 1

    word = {"context": "Once upon a", "continuation": "time"}
    task = loaded("lambada", tmp_path, word)
    task.build_all_requests()
    assert task.instances[0].args == ("Once upon a", " time")


def test_every_task_of_the_catalogue_has_a_definition_and_the_other_way_round() -> None:
    definitions = TaskManager(include_path=str(DEFINITIONS), include_defaults=False)
    assert set(definitions.all_subtasks) == {*TASKS, OWN}


def test_questions_without_an_answer_are_left_out_and_counted(tmp_path: Path) -> None:
    row = {"question": "q", "choices": ["a", "b"], "label": 0}
    docs = loaded(OWN, tmp_path, row | {"label": 5}, row, row | {"choices": ["a"]}).eval_docs
    assert (len(docs), docs.unusable) == (1, 2)
    with pytest.raises(NoUsableQuestion, match="no usable question, but 1 without"):
        loaded(OWN, tmp_path, row | {"label": None})


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("commonsenseqa", {"question": "flat", "answerKey": "A"}),
        ("c3", {"document": ["d"], "questions": [{"question": "q"}]}),
        ("hellaswag", {"activity_label": "a", "ctx_a": 1, "ctx_b": 2, "endings": [], "label": 0}),
    ],
)
def test_a_row_of_another_form_is_named(name: str, row: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(TaskDataError, match=rf"row 1 has another form than {name} needs"):
        loaded(name, tmp_path, row)
