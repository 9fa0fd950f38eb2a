"""From the rows of a task's file to its questions, by the same rules at the door and in the engine.

Rows keep their names; what differs from one row per question with a place for the right answer, `gold`, is laid out
here: flat questions (C3), the cleaned text of HellaSwag, letters as places. A question without a right answer among its
options is left out, and counted.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from app.core.tasks import OWN, NoUsableQuestion, Task, TaskDataError, TooFewQuestions, read_rows, right_option

Row = Mapping[str, Any]
Question = dict[str, Any]


SPLIT = "_split"
"""The field that names the split of a row of a task of the harness, where it is not the one that is asked."""


class Questions(list[Question]):
    """The questions of a task, in the order of the file; `unusable` ones are not among them."""

    def __init__(self, questions: list[Question], unusable: int) -> None:
        super().__init__(questions)
        self.unusable = unusable

    @property
    def features(self) -> Question:
        """The names of the first question's fields: what the harness asks a data set's split for."""
        return self[0]


def read_questions(path: Path, task: Task) -> Questions:
    """Return the questions of a task's file.

    Raises:
        TaskDataError: the file cannot be read, lacks a column, or has no usable question, or fewer than the task needs
            to show examples beside the one it asks.
    """
    if task.split:
        return Questions(split_rows(path, task)[task.split], 0)
    questions, unusable = [], 0
    for number, row in enumerate(read_rows(path, task), start=1):
        try:
            found = list(_LAYOUTS.get(task.name, _plain)(row))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise TaskDataError(f"row {number} has another form than {task.name} needs: {error!r}") from None
        usable = [question for question in found if question.get("gold", 0) is not None]
        unusable += len(found) - len(usable)
        questions += usable
    if not questions:
        raise NoUsableQuestion(
            f"there is no usable question, but {unusable} without a right answer among their options"
        )
    if task.examples and (different := _different(questions)) <= task.examples:
        raise TooFewQuestions(
            f"it has {different} different questions and needs {task.examples + 1}: {task.examples} are shown, "
            "answered, in front of each"
        )
    return Questions(questions, unusable)


def split_rows(path: Path, task: Task) -> dict[str, list[Question]]:
    """Return the rows of a task of the harness, split by split; the one that is asked is always there.

    Raises:
        TaskDataError: the file cannot be read, lacks a column, or has no row to ask, or too few to show as examples.
    """
    splits: dict[str, list[Question]] = {task.split: []}
    for row in read_rows(path, task):
        splits.setdefault(str(row.get(SPLIT, task.split)), []).append({k: v for k, v in row.items() if k != SPLIT})
    asked = splits[task.split]
    if not asked:
        raise NoUsableQuestion(f"there is no row of the split {task.split!r}, which is asked")
    shown = splits.get(task.examples_split or task.split, [])
    needed = task.examples + (not task.examples_split)
    if task.examples and (different := _different(shown)) < needed:
        raise TooFewQuestions(
            f"{task.examples} answered examples are shown in front of each question; there are {different} different "
            f"rows of the split {task.examples_split or task.split!r}, and {needed} are needed. Give rows of another "
            f'split than {task.split!r} the field "{SPLIT}"'
        )
    return splits


def _different(questions: list[Question]) -> int:
    return len({json.dumps(question, sort_keys=True) for question in questions})


def _plain(row: Row) -> Iterator[Question]:
    yield dict(row)


def _with_gold(options: str | tuple[str, ...], label: str) -> Callable[[Row], Iterator[Question]]:
    """Return the layout of a row with its options in one field, or in several, and the right one in `label`."""

    def layout(row: Row) -> Iterator[Question]:
        found = row[options] if isinstance(options, str) else [row[name] for name in options]
        yield {**row, "gold": right_option(found, row[label])}

    return layout


def _hellaswag(row: Row) -> Iterator[Question]:
    """As the harness does it: the artefacts of the WikiHow part are taken out."""
    text = f"{row['activity_label']}: {row['ctx_a']} {row['ctx_b'].capitalize()}"
    choices = [_cleaned(ending) for ending in row["endings"]]
    yield {**row, "query": _cleaned(text), "choices": choices, "gold": right_option(choices, int(row["label"]))}


def _cleaned(text: str) -> str:
    text = re.sub(r"\[.*?\]", "", text.strip().replace(" [title]", ". "))
    return text.replace("  ", " ")


def _commonsenseqa(row: Row) -> Iterator[Question]:
    question = row["question"]
    texts = [choice["text"] for choice in question["choices"]]
    labels = [choice["label"] for choice in question["choices"]]
    gold = labels.index(row["answerKey"]) if len(texts) == 5 and row["answerKey"] in labels else None
    yield {"stem": question["stem"], "texts": texts, "gold": gold}


def _cmmlu(row: Row) -> Iterator[Question]:
    for question in _with_gold(("A", "B", "C", "D"), "Answer")(row):
        yield {**question, "field": _FIELDS.get(row["subject"], row["subject"])}


def _cmnli(row: Row) -> Iterator[Question]:
    """As CLUE publishes it; a pair on which the annotators did not agree has the label `-`."""
    labels = {"entailment": 0, "neutral": 1, "contradiction": 2}
    yield {**row, "gold": labels.get(row["label"])}


def _chid(row: Row) -> Iterator[Question]:
    """As FewCLUE publishes it: `#idiom#` stands in the text for one of seven idioms."""
    texts = [f"{row['content'].replace('#idiom#', idiom)}\n{_READS_WELL}" for idiom in row["candidates"]]
    yield {**row, "texts": texts, "gold": right_option(texts, int(row["answer"]))}


_READS_WELL = "这个句子是通顺的。"
"""What OpenCompass lets a model answer to each of CHID's texts."""


def _c3(row: Row) -> Iterator[Question]:
    for question in row["questions"]:
        choices, answer = question["choice"], question["answer"]
        gold = choices.index(answer) if len(choices) > 1 and answer in choices else None
        yield {
            "document": " ".join(row["document"]),  # as OpenCompass joins turns and paragraphs
            "question": question["question"],
            "choice": choices,
            "gold": gold,
        }


def _own(row: Row) -> Iterator[Question]:
    """A `question` is asked and answered; a `context` goes on with the option, behind `sep` or a space."""
    if "question" in row:
        context = f"{row['context']}\n" if row.get("context") else ""
        query = f"{context}Question: {row['question']}\nAnswer: "
    else:
        query = f"{row['context']}{row.get('sep', ' ')}"
    yield {**row, "query": query, "gold": right_option(row["choices"], row["label"])}


_LAYOUTS: Mapping[str, Callable[[Row], Iterator[Question]]] = {
    "piqa": _with_gold(("sol1", "sol2"), "label"),
    "hellaswag": _hellaswag,
    "race": _with_gold("options", "answer"),
    **dict.fromkeys(("boolq", "arc_easy", "arc_challenge", "openbookqa", "copa"), _with_gold("choices", "gold")),
    **dict.fromkeys(("wsc273", "winogrande"), _with_gold("context_options", "gold")),
    "commonsenseqa": _commonsenseqa,
    "mmlu": _with_gold("choices", "answer"),
    "cmmlu": _cmmlu,
    "cmnli": _cmnli,
    "chid": _chid,
    "c3": _c3,
    "story_cloze": _with_gold("choices", "label"),
    OWN: _own,
}

_FIELDS = {
    "agronomy": "农学", "anatomy": "解剖学", "ancient_chinese": "古汉语", "arts": "艺术学", "astronomy": "天文学",
    "business_ethics": "商业伦理", "chinese_civil_service_exam": "中国公务员考试", "chinese_driving_rule":
    "中国驾驶规则", "chinese_food_culture": "中国饮食文化", "chinese_foreign_policy": "中国外交政策",
    "chinese_history": "中国历史", "chinese_literature": "中国文学", "chinese_teacher_qualification":
    "中国教师资格", "clinical_knowledge": "临床知识", "college_actuarial_science": "大学精算学",
    "college_education": "大学教育学", "college_engineering_hydrology": "大学工程水文学", "college_law": "大学法律",
    "college_mathematics": "大学数学", "college_medical_statistics": "大学医学统计", "college_medicine":
    "大学医学", "computer_science": "计算机科学", "computer_security": "计算机安全", "conceptual_physics":
    "概念物理学", "construction_project_management": "建设工程管理", "economics": "经济学", "education": "教育学",
    "electrical_engineering": "电气工程", "elementary_chinese": "小学语文", "elementary_commonsense":
    "小学常识", "elementary_information_and_technology": "小学信息技术", "elementary_mathematics": "初等数学",
    "ethnology": "民族学", "food_science": "食品科学", "genetics": "遗传学", "global_facts": "全球事实",
    "high_school_biology": "高中生物", "high_school_chemistry": "高中化学", "high_school_geography": "高中地理",
    "high_school_mathematics": "高中数学", "high_school_physics": "高中物理学", "high_school_politics":
    "高中政治", "human_sexuality": "人类性行为", "international_law": "国际法学", "journalism": "新闻学",
    "jurisprudence": "法理学", "legal_and_moral_basis": "法律与道德基础", "logical": "逻辑学",
    "machine_learning": "机器学习", "management": "管理学", "marketing": "市场营销", "marxist_theory":
    "马克思主义理论", "modern_chinese": "现代汉语", "nutrition": "营养学", "philosophy": "哲学",
    "professional_accounting": "专业会计", "professional_law": "专业法学", "professional_medicine": "专业医学",
    "professional_psychology": "专业心理学", "public_relations": "公共关系", "security_study": "安全研究",
    "sociology": "社会学", "sports_science": "体育学", "traditional_chinese_medicine": "中医中药", "virology":
    "病毒学", "world_history": "世界历史", "world_religions": "世界宗教"
}  # fmt: skip
"""CMMLU's subjects as its prompts name them (arXiv 2306.09212)."""
