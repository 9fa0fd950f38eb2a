"""Tasks of a request: their data are found in uploads and in the mirror, and what is missing is said at submission."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.api.conftest import JOB, Service, running, settings_for

PIQA = {"goal": "To open a jar", "sol1": "twist the lid", "sol2": "eat the lid", "label": 0}
PAIR = {"sentence_good": "He sees himself.", "sentence_bad": "He sees herself."}
OWN = {"question": "What is up?", "choices": ["the sky", "the floor"], "label": "A"}


def lines(*rows: dict[str, Any]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


@pytest.fixture(scope="module")
def mirrored(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service with a mirror of two tasks of the paper's suite, one of them broken, and of two BLiMP paradigms."""
    directory = tmp_path_factory.mktemp("mirrored")
    mirror = directory / "mirror"
    (mirror / "blimp").mkdir(parents=True)
    (mirror / "piqa.jsonl").write_bytes(lines(PIQA))
    (mirror / "arc_easy.jsonl").write_bytes(lines({"query": "Question: 1?", "choices": ["a", "b"]}))
    for name in ("passive_1", "wh_island"):
        (mirror / "blimp" / f"{name}.jsonl").write_bytes(lines(PAIR))
    settings = settings_for(directory / "data", None).model_copy(update={"task_data": mirror})
    with running(settings) as found:
        yield found


def evaluation(service: Service, **changes: Any) -> dict[str, Any]:
    found: dict[str, Any] = service.submit(evaluation=changes)["spec"]["evaluation"]
    return found


def test_without_data_there_are_no_tasks(shared_service: Service) -> None:
    answer = shared_service.http.post("/v1/plans", json=JOB)
    assert answer.status_code == 200


def test_the_papers_tasks_that_have_data_are_the_default(mirrored: Service) -> None:
    spec = evaluation(mirrored)
    assert spec["tasks"] == ["piqa"]
    assert (spec["limit"], spec["over"]) == (500, "option")


def test_a_group_stands_for_those_of_its_tasks_that_have_data(mirrored: Service) -> None:
    spec = evaluation(mirrored, tasks=["blimp"], limit=7)
    assert sorted(spec["tasks"]) == ["blimp_passive_1", "blimp_wh_island"]
    assert evaluation(mirrored, **spec) == spec, "a resolved request asks for the same again"
    problem = mirrored.refused(JOB | {"evaluation": {"tasks": ["blimp", "blimp_passive_1"]}})
    assert (problem["code"], problem["pointer"]) == ("conflicting_fields", "/evaluation/tasks/1")


def test_no_tasks_are_no_tasks(mirrored: Service) -> None:
    assert evaluation(mirrored, tasks=[])["tasks"] == []


def test_an_upload_of_the_files_name_has_the_tasks_data(mirrored: Service) -> None:
    mirrored.upload(lines({"context": "Once upon", "continuation": "a time"}), "lambada.jsonl")
    assert evaluation(mirrored, tasks=["lambada"])["tasks"] == ["lambada"]


def test_a_jobs_rows_stay_those_of_its_submission(mirrored: Service) -> None:
    """Whatever is uploaded or changed in the mirror later: attempts use the data set that the specification names."""
    mirrored.upload(lines(PIQA | {"goal": "Somebody else's"}), "piqa.jsonl")
    spec = evaluation(mirrored, tasks=["piqa"])
    (pinned,) = spec["task_data"].values()
    found = mirrored.http.get(f"/v1/datasets/{pinned}").json()
    assert found["sha256"] == hashlib.sha256(lines(PIQA)).hexdigest(), "no upload takes the mirror's place"
    assert evaluation(mirrored, **spec) == spec

    first = mirrored.upload(lines({"context": "It is", "continuation": "late"}), "lambada.jsonl")["id"]
    spec = evaluation(mirrored, tasks=["lambada"])
    assert spec["task_data"] == {"lambada": first}, "the newest upload"
    second = mirrored.upload(lines({"context": "It is", "continuation": "early"}), "lambada.jsonl")["id"]
    assert evaluation(mirrored, **spec)["task_data"] == {"lambada": first}
    assert evaluation(mirrored, tasks=["lambada"])["task_data"] == {"lambada": second}


def test_a_request_may_name_the_rows_of_a_task(mirrored: Service) -> None:
    mine = mirrored.upload(lines(PIQA | {"goal": "Mine"}), "of another name.jsonl")["id"]
    assert evaluation(mirrored, tasks=["piqa"], task_data={"piqa": mine})["task_data"] == {"piqa": mine}
    assert evaluation(mirrored, task_data={"piqa": mine})["tasks"] == ["piqa"], "and be of the default suite"
    text = mirrored.upload(b"plain words", "words.txt")["id"]
    for data, code, pointer in (
        ({"piqa": "ds-0"}, "unknown_dataset", "piqa"),
        ({"piqa": text}, "bad_task_data", "piqa"),
        ({"piqa": mine, "a/b": mine}, "conflicting_fields", "a~1b"),
    ):
        problem = mirrored.refused(JOB | {"evaluation": {"tasks": ["piqa"], "task_data": data}})
        assert (problem["code"], problem["pointer"]) == (code, f"/evaluation/task_data/{pointer}")


def test_written_answers_need_a_question_more_than_the_examples_shown(mirrored: Service) -> None:
    rows = [{"question": f"{n}?", "answer": f"#### {n}"} for n in range(6)]
    few = mirrored.upload(lines(*rows[:5], rows[0]), "few.jsonl")["id"]
    problem = mirrored.refused(JOB | {"evaluation": {"tasks": ["gsm8k"], "task_data": {"gsm8k": few}}})
    assert problem["code"] == "bad_task_data"
    assert "5 different questions and needs 6" in problem["detail"]
    enough = mirrored.upload(lines(*rows), "enough.jsonl")["id"]
    assert evaluation(mirrored, tasks=["gsm8k"], task_data={"gsm8k": enough})["tasks"] == ["gsm8k"]


def test_rows_behind_the_limit_are_looked_at_too(mirrored: Service) -> None:
    late = mirrored.upload(lines(*[OWN | {"note": "n"}] * 3, {"note": "n"}), "late.jsonl")["id"]
    problem = mirrored.refused(JOB | {"evaluation": {"tasks": [late], "limit": 2}})
    assert (problem["code"], problem["pointer"]) == ("unknown_column", "/evaluation/tasks/0")
    assert "line 4" in problem["detail"]


def test_a_task_of_which_no_row_has_a_right_answer_is_refused(mirrored: Service) -> None:
    wrong = mirrored.upload(lines(PIQA | {"label": 7}), "wrong.jsonl")["id"]
    problem = mirrored.refused(JOB | {"evaluation": {"tasks": ["piqa"], "task_data": {"piqa": wrong}}})
    assert problem["code"] == "no_usable_question"


def test_a_task_of_the_harness_needs_its_rows_and_goes_by_its_name(mirrored: Service) -> None:
    problem = mirrored.refused(JOB | {"evaluation": {"tasks": ["sciq"]}})
    assert problem["code"] == "missing_task_data"
    assert "sciq.jsonl" in problem["detail"]
    problem = mirrored.refused(JOB | {"evaluation": {"tasks": ["mmlu_anatomi"]}})
    assert problem["code"] == "unknown_task"
    assert "mmlu_anatomy" in problem["detail"]
    row = {"question": "q", "choices": ["a", "b", "c", "d"], "answer": 1}
    short = mirrored.upload(lines({"question": "q"}), "mmlu_anatomy.jsonl")
    problem = mirrored.refused(JOB | {"evaluation": {"tasks": ["mmlu_anatomy"]}})
    assert problem["code"] == "unknown_column"
    assert "lacks answer, choices; there: question" in problem["detail"], short
    rows = mirrored.upload(lines(row), "mmlu_anatomy.jsonl")["id"]
    found = evaluation(mirrored, tasks=["mmlu_anatomy"])
    assert (found["tasks"], found["task_data"]) == (["mmlu_anatomy"], {"mmlu_anatomy": rows})


def test_ones_own_questions_are_a_task_by_the_data_sets_id(mirrored: Service) -> None:
    own = mirrored.upload(lines(OWN), "mine.jsonl")["id"]
    assert evaluation(mirrored, tasks=["piqa", own])["tasks"] == ["piqa", own]
    job = mirrored.submit(
        evaluation={"tasks": [own]},
        gates={"min_stability": 0.5, "max_flip_rate": 0.5, "tasks": {own: {"min_accuracy_retained": 0.9}}},
    )
    assert job["spec"]["gates"]["tasks"] == {
        own: {"min_accuracy_retained": 0.9, "min_stability": None, "max_flip_rate": None}
    }


@pytest.mark.parametrize(
    ("rows", "code", "said"),
    [
        ([{"question": "q", "options": ["a", "b"], "label": 0}], "unknown_column", "lacks choices"),
        ([{"question": "q", "choices": ["a", "b"], "label": 0}, {"text": "t"}], "unknown_column", "there: note, text"),
        ([OWN | {"label": 7}], "no_usable_question", "`label`"),
        ([OWN | {"choices": ["one"]}], "no_usable_question", "two or more"),
    ],
)
def test_rows_that_make_no_task_are_refused(rows: list[Any], code: str, said: str, mirrored: Service) -> None:
    own = mirrored.upload(lines(*({"note": "n"} | row for row in rows)), "bad.jsonl")["id"]
    problem = mirrored.refused(JOB | {"evaluation": {"tasks": [own]}})
    assert (problem["code"], problem["pointer"]) == (code, "/evaluation/tasks/0")
    assert said in problem["detail"]


def test_a_file_of_the_mirror_without_a_column_is_refused(mirrored: Service) -> None:
    problem = mirrored.refused(JOB | {"evaluation": {"tasks": ["arc_easy"]}})
    assert (problem["code"], problem["pointer"]) == ("unknown_column", "/evaluation/tasks/0")
    assert "lacks gold" in problem["detail"]
    assert "there: query, choices" in problem["detail"]


def test_a_bar_needs_a_task_that_can_be_measured(mirrored: Service) -> None:
    mirrored.upload(lines({"document": "d", "summary": "s", "id": "1"}), "xsum.jsonl")
    for gate in ("min_stability", "max_flip_rate"):
        problem = mirrored.refused(JOB | {"evaluation": {"tasks": ["xsum"]}, "gates": {gate: 0.5}})
        assert (problem["code"], problem["pointer"]) == ("gate_not_measured", f"/gates/{gate}")
    problem = mirrored.refused(
        JOB | {"evaluation": {"tasks": ["piqa"]}, "gates": {"tasks": {"copa": {"min_stability": 0.5}}}}
    )
    assert (problem["code"], problem["pointer"]) == ("gate_not_measured", "/gates/tasks/copa")
    assert "piqa" in problem["detail"]


def test_a_mirror_that_is_not_there_fails_at_boot(tmp_path: Path) -> None:
    from app.settings import SettingsError, load_settings

    with pytest.raises(SettingsError, match="STREAMLINE_TASK_DATA must name a directory"):
        load_settings(task_data=tmp_path / "absent")
