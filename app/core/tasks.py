"""Which tasks there are, what file each reads, and what its rows must hold: known without the harness that runs them.

The prompts are in `worker/engine/evaluation/tasks`, a definition of lm-evaluation-harness for each name. The forms of
the files are those that the sets' authors, or llm-foundry, publish.

Beside them stand the tasks that the harness itself brings, by its names; where both have a name, it is ours. What those
need is in `harness_tasks.json`, which `worker.engine.evaluation.harness_index` writes. Their rows are the harness' data
set as JSON lines, in one file: those of the split that is asked, and where `_split` names another one, of that.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final, Literal

Kind = Literal["choice", "completion", "generation"]
"""Choose among options by their likelihood; complete a text with the likeliest words; write an answer."""

OWN: Final = "multiple_choice"
"""The definition of users' own data sets: question or context, choices, label."""

_SUGGESTIONS = 5


@dataclass(frozen=True)
class Task:
    """A task by its name.

    Attributes:
        name: as in a request, and the harness' name of the definition.
        file: path of its rows below a mirror; an uploaded data set has this name, or its last part.
        columns: what every row must hold.
        kind: how it is answered.
        graded: answers get a grade (ROUGE) and are not right or wrong.
        examples: questions that are shown, answered, in front of each.
        split: the harness' name of the rows that are asked; empty for our own definitions.
        examples_split: that of the rows that are shown; empty where they are among those that are asked.
        directory: of the definition below the harness' own; empty for ours.
    """

    name: str
    file: str
    columns: tuple[str, ...]
    kind: Kind = "choice"
    graded: bool = False
    examples: int = 0
    split: str = ""
    examples_split: str = ""
    directory: str = ""

    @property
    def upload_names(self) -> tuple[str, ...]:
        """What an uploaded data set with its rows may be called."""
        return self.file, self.file.rpartition("/")[2], self.name


class TaskDataError(ValueError):
    """Rows that a task cannot be made of; the message says what is missing and what is there."""


class ColumnsMissing(TaskDataError):  # noqa: N818 - named for what happened
    """A row lacks what the task needs."""


class NoUsableQuestion(TaskDataError):  # noqa: N818 - named for what happened
    """Every row lacks a right answer among its options."""


class TooFewQuestions(TaskDataError):  # noqa: N818 - named for what happened
    """Not enough questions to show examples beside the one that is asked."""


_LLM_FOUNDRY = ("query", "choices", "gold")
_PARTIAL = ("context_options", "continuation", "gold")
_BLIMP: Final = """
    adjunct_island anaphor_gender_agreement anaphor_number_agreement animate_subject_passive
    animate_subject_trans causative complex_NP_island coordinate_structure_constraint_complex_left_branch
    coordinate_structure_constraint_object_extraction determiner_noun_agreement_1 determiner_noun_agreement_2
    determiner_noun_agreement_irregular_1 determiner_noun_agreement_irregular_2
    determiner_noun_agreement_with_adj_2 determiner_noun_agreement_with_adj_irregular_1
    determiner_noun_agreement_with_adj_irregular_2 determiner_noun_agreement_with_adjective_1
    distractor_agreement_relational_noun distractor_agreement_relative_clause drop_argument ellipsis_n_bar_1
    ellipsis_n_bar_2 existential_there_object_raising existential_there_quantifiers_1
    existential_there_quantifiers_2 existential_there_subject_raising expletive_it_object_raising inchoative
    intransitive irregular_past_participle_adjectives irregular_past_participle_verbs
    irregular_plural_subject_verb_agreement_1 irregular_plural_subject_verb_agreement_2
    left_branch_island_echo_question left_branch_island_simple_question matrix_question_npi_licensor_present
    npi_present_1 npi_present_2 only_npi_licensor_present only_npi_scope passive_1 passive_2
    principle_A_c_command principle_A_case_1 principle_A_case_2 principle_A_domain_1 principle_A_domain_2
    principle_A_domain_3 principle_A_reconstruction regular_plural_subject_verb_agreement_1
    regular_plural_subject_verb_agreement_2 sentential_negation_npi_licensor_present
    sentential_negation_npi_scope sentential_subject_island superlative_quantifiers_1 superlative_quantifiers_2
    tough_vs_raising_1 tough_vs_raising_2 transitive wh_island wh_questions_object_gap wh_questions_subject_gap
    wh_questions_subject_gap_long_distance wh_vs_that_no_gap wh_vs_that_no_gap_long_distance wh_vs_that_with_gap
    wh_vs_that_with_gap_long_distance
""".split()  # noqa: SIM905 - as readable as 67 names can be

_TASKS = (
    Task("piqa", "piqa.jsonl", ("goal", "sol1", "sol2", "label")),
    Task("hellaswag", "hellaswag.jsonl", ("activity_label", "ctx_a", "ctx_b", "endings", "label")),
    Task("race", "race.jsonl", ("article", "question", "options", "answer")),
    *(Task(f"blimp_{name}", f"blimp/{name}.jsonl", ("sentence_good", "sentence_bad")) for name in _BLIMP),
    Task("boolq", "boolq.jsonl", _LLM_FOUNDRY),
    Task("wsc273", "wsc273.jsonl", _PARTIAL),
    Task("winogrande", "winogrande.jsonl", _PARTIAL),
    Task("arc_easy", "arc_easy.jsonl", _LLM_FOUNDRY),
    Task("arc_challenge", "arc_challenge.jsonl", _LLM_FOUNDRY),
    Task("openbookqa", "openbookqa.jsonl", _LLM_FOUNDRY),
    Task("copa", "copa.jsonl", _LLM_FOUNDRY),
    Task("commonsenseqa", "commonsenseqa.jsonl", ("question", "answerKey")),
    Task("mmlu", "mmlu.jsonl", ("subject", "question", "choices", "answer")),
    Task("cmmlu", "cmmlu.jsonl", ("subject", "Question", "A", "B", "C", "D", "Answer")),
    Task("cmnli", "cmnli.jsonl", ("sentence1", "sentence2", "label")),
    Task("chid", "chid.jsonl", ("content", "candidates", "answer")),
    Task("c3", "c3.jsonl", ("document", "questions")),
    Task("story_cloze", "story_cloze.jsonl", ("context", "sep", "choices", "label")),
    Task("lambada", "lambada.jsonl", ("context", "continuation"), "completion"),
    Task("gsm8k", "gsm8k.jsonl", ("question", "answer"), "generation", examples=5),
    Task("strategyqa", "strategyqa.jsonl", ("question", "answer"), "generation", examples=5),
    Task("xsum", "xsum.jsonl", ("document", "summary"), "generation", graded=True),
)

TASKS: Final[Mapping[str, Task]] = {task.name: task for task in _TASKS}
"""All tasks by name."""

GROUPS: Final[Mapping[str, tuple[str, ...]]] = {"blimp": tuple(f"blimp_{name}" for name in _BLIMP)}
"""Names that stand for those of several tasks whose data are there."""

PAPER_SUITE: Final = (
    "cmnli", "hellaswag", "piqa", "chid", "wsc273", "commonsenseqa", "boolq", "mmlu", "cmmlu", "race", "c3",
    "xsum", "gsm8k", "strategyqa",
)  # fmt: skip
"""What LLM-Streamline (arXiv 2403.19135, section 4.1) is judged on."""


_OWN_TASK = Task(OWN, "", ("choices", "label"))


def by_definition(name: str) -> Task:
    """Return the task of a definition's name, that of users' own data sets among them.

    Raises:
        KeyError: there is none.
    """
    return _OWN_TASK if name == OWN else TASKS[name] if name in TASKS else _harness_tasks()[name]


def find(name: str) -> Task | None:
    """Return the task of a name, of our catalogue or else of the harness; None where there is none."""
    return TASKS.get(name) or _harness_tasks().get(name)


def names_of_same_task(name: str) -> frozenset[str]:
    """Return all names of uploads that the same tasks are found by as by this one; none where it is no task's."""
    return _by_upload_name().get(name, frozenset())


@cache
def _by_upload_name() -> Mapping[str, frozenset[str]]:
    found: dict[str, frozenset[str]] = {}
    for task in (*TASKS.values(), *(task for name, task in _harness_tasks().items() if name not in TASKS)):
        for name in task.upload_names:
            found[name] = found.get(name, frozenset()).union(task.upload_names)
    return found


@cache
def _harness_tasks() -> Mapping[str, Task]:
    forms = json.loads((Path(__file__).parent / "harness_tasks.json").read_text(encoding="utf-8"))
    return {
        name: Task(
            name,
            f"{name}.jsonl",
            tuple(form["columns"]),
            form["kind"],
            examples=form["examples"],
            split=form["split"],
            examples_split="" if form["examples_split"] == form["split"] else form["examples_split"] or "",
            directory=form["directory"],
        )
        for form in forms
        for name in form["names"]
    }


def available(names: Iterable[str], directory: Path | None) -> dict[str, Path]:
    """Return task -> file of those tasks that have one below a mirror."""
    files = {name: directory / by_definition(name).file for name in names} if directory is not None else {}
    return {name: path for name, path in files.items() if path.is_file()}


def known_tasks() -> list[str]:
    """Return the names of tasks and groups, the members of groups left out."""
    members = {name for group in GROUPS.values() for name in group}
    return [*(name for name in TASKS if name not in members), *GROUPS]


def nearest(name: str, also: Iterable[str] = ()) -> list[str]:
    """Return the names that an unknown one may have been meant as."""
    ours = difflib.get_close_matches(name, [*TASKS, *GROUPS, *also], n=_SUGGESTIONS, cutoff=0.5)
    theirs = difflib.get_close_matches(name, _harness_tasks(), n=_SUGGESTIONS, cutoff=0.75)
    return [*dict.fromkeys((*ours, *theirs))][: 2 * _SUGGESTIONS] or [*PAPER_SUITE[:_SUGGESTIONS]]


def read_rows(path: Path, task: Task) -> list[dict[str, Any]]:
    """Return the rows of a task's file (JSON lines), each with every column that the task needs.

    Raises:
        TaskDataError: naming the line, and the columns that are missing and there.
    """
    rows = list(_rows(path, task))
    if not rows:
        raise NoUsableQuestion("there are no rows")
    return rows


def _rows(path: Path, task: Task) -> Iterator[dict[str, Any]]:
    try:
        with path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    row = json.loads(line)
                    if not isinstance(row, dict):
                        raise TaskDataError(f"line {number} is not a JSON object")
                    if missing := missing_columns(row, task):
                        raise ColumnsMissing(
                            f"line {number} lacks {', '.join(missing)}; there: {', '.join(row) or 'nothing'}"
                        )
                    yield row
    except OSError as error:
        raise TaskDataError(f"its file cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise TaskDataError(f"its file is not UTF-8 text ({error.reason})") from None
    except json.JSONDecodeError as error:
        raise TaskDataError(f"its file is not JSON lines: {error.msg}") from None


def missing_columns(row: Mapping[str, Any], task: Task) -> list[str]:
    """Return the columns that a row lacks for a task."""
    missing = [name for name in task.columns if name not in row]
    if task.name == OWN and not {"question", "context"} & set(row):
        missing.insert(0, "question (or context)")
    return missing


def right_option(options: Sequence[Any], label: Any) -> int | None:
    """Return the place of the right one among the options; None where the question is of no use.

    Args:
        options: two or more texts, none of them empty.
        label: a place counted from 0, also as digits; a letter from A; or the text of one option.
    """
    if not isinstance(options, list) or len(options) < 2 or not all(isinstance(o, str) and o for o in options):
        return None
    if isinstance(label, bool):
        return None
    if isinstance(label, str):
        if options.count(label) == 1:
            return options.index(label)
        label = int(label) if label.isdecimal() else ord(label) - ord("A") if len(label) == 1 else -1
    return label if isinstance(label, int) and 0 <= label < len(options) else None
