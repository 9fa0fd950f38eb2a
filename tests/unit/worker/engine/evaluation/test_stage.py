"""What the evaluate stage says of tasks: the same questions to both models, each answer on record, none asked twice."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from app.cli.stability import measure
from tests.unit.worker.engine.recipes import make_recipe, recipe_json, write_text
from tests.unit.worker.engine.tiny_models import save_model
from worker.engine import execution, pipeline
from worker.engine.context import StageContext
from worker.engine.decoder import Decoder, load_decoder
from worker.engine.errors import EngineError
from worker.engine.events import Collected, Emitter
from worker.engine.report import metrics
from worker.engine.stages import SELECTION

# Neither a fresh process nor the clock has a part in this.
STAGES = tuple(stage for stage in pipeline.STAGES if stage.name not in {"verify", "benchmark"})
OWN = "multiple_choice"


def question(number: int, **changes: Any) -> dict[str, Any]:
    options = [f"w{number % 50 + 2}", f"w{number % 40 + 9} w{number % 30 + 4}", "w5 w6 w7"]
    return {"context": f"w{number + 2} w{60 - number} w3", "choices": options, "label": number % 3, **changes}


def write_questions(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def judging(*files: Path, definition: str = OWN, over: str = "option", limit: int | None = None) -> dict[str, Any]:
    tasks = [{"name": path.stem, "definition": definition, "path": str(path)} for path in files]
    return {"tasks": tasks, "limit": limit, "over": over}


def run(model: Path, text: Path, workspace: Path, **changes: Any) -> tuple[dict[str, Any], list[Any]]:
    """Run all but proof and benchmark; the evaluation and the events."""
    sink = Collected()
    block = recipe_json(model, text)["replacement"] | {"kind": "none"}
    recipe = make_recipe(model, text, replacement=block, **changes)
    context = StageContext(recipe, workspace, workspace.parent / "cache", Emitter(sink), "cpu")
    pipeline.run_pipeline(context, STAGES)
    return json.loads((workspace / "evaluation.json").read_text()), sink.events


@pytest.fixture(scope="module")
def scene(
    tiny_directory: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path, Path, dict[str, Any], list[Any]]:
    """Model, text and directory of a run on two tasks, with its evaluation and events."""
    directory = tmp_path_factory.mktemp("judged")
    text = write_text(directory / "words.jsonl")
    mine = write_questions(directory / "mine.jsonl", *map(question, range(24)), question(1, label="none"))
    words = write_questions(
        directory / "words_last.jsonl", *({"context": f"w{n} w3", "continuation": "w4"} for n in range(2, 9))
    )
    asked = judging(mine)
    asked["tasks"].append({"name": "lambada", "definition": "lambada", "path": str(words)})
    model = tiny_directory("llama")
    return model, text, directory, *run(model, text, directory / "run", judging=asked)


def records(workspace: Path, task: str, variant: str) -> list[dict[str, Any]]:
    lines = (workspace / "samples" / f"{task}.{variant}.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_each_task_has_accuracy_stability_flips_and_divergence(scene: Any) -> None:
    *_, evaluation, _ = scene
    mine = evaluation["tasks"]["mine"]
    assert mine["kind"] == "choice"
    assert mine["questions"] == 24, "one has no right answer"
    assert set(mine["accuracy"]) == {"dense", "pruned", "stderr"}
    assert mine["stability"]["low"] <= mine["stability"]["value"] <= mine["stability"]["high"] <= 1
    assert set(mine["flips"]) == {"right_to_wrong", "wrong_to_right", "confident_flipped"}
    assert mine["kl"] > 0
    lambada = evaluation["tasks"]["lambada"]
    assert (lambada["kind"], lambada["stability"], lambada["kl"]) == ("completion", None, None)
    assert evaluation["stability_over"] == "option"


def test_what_is_left_out_is_said(scene: Any) -> None:
    *_, events = scene
    said = [event["message"] for event in events if event["event"] == "log"]
    assert "mine: 1 questions without a right answer among their options are left out" in said


def test_metrics_have_the_contracts_names_with_means_and_intervals(scene: Any) -> None:
    *_, evaluation, _ = scene
    found = metrics({"evaluation": evaluation}, {})
    for variant in ("dense", "pruned"):
        shares = found["accuracy"][variant]
        assert shares["mean"] == pytest.approx((shares["mine"] + shares["lambada"]) / 2)
    assert found["stability"] == {
        "mine": evaluation["tasks"]["mine"]["stability"]["value"],
        "lambada": None,
        "mean": evaluation["tasks"]["mine"]["stability"]["value"],
    }
    assert found["flips"]["mine"]["right_to_wrong"] >= 0
    assert found["intervals"]["stability"]["mean"][0] <= found["stability"]["mean"]


def test_records_are_samples_that_stability_is_computed_from_again(scene: Any) -> None:
    _, _, directory, evaluation, _ = scene
    dense, pruned = (records(directory / "run", "mine", variant) for variant in ("dense", "pruned"))
    assert [row["arguments"] for row in dense] == [row["arguments"] for row in pruned], "identical requests"
    samples = directory / "run" / "samples"
    again = measure(samples / "mine.dense.jsonl", samples / "mine.pruned.jsonl", None)["tasks"]["mine"]
    assert again["stability"]["value"] == evaluation["tasks"]["mine"]["stability"]["value"]
    # The definition in five lines, sharing no code with the above.
    nll = np.array(
        [[-float(r[0][0]) / n for r, n in zip(row["resps"], row["token_counts"], strict=True)] for row in dense]
    )
    s = nll.std(axis=1)
    w = np.exp(s) / np.exp(s).sum()
    same = np.array([a["acc"] == b["acc"] for a, b in zip(dense, pruned, strict=True)])
    assert evaluation["tasks"]["mine"]["stability"]["value"] == pytest.approx(w[same].sum(), abs=1e-12)


def test_a_later_run_asks_the_dense_model_nothing_again(scene: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model, text, directory, evaluation, _ = scene
    asked = judging(directory / "mine.jsonl")
    loaded: list[Path] = []

    def counted(path: Path, *arguments: Any, **named: Any) -> Decoder:
        loaded.append(path)
        return load_decoder(path, *arguments, **named)

    monkeypatch.setattr(execution, "load_decoder", counted)
    other, events = run(model, text, directory / "sweep", judging=asked, target={"layers": 1})
    assert "mine: the dense model's answers are known from an earlier run" in [event.get("message") for event in events]
    (text_before,), (text_now,) = evaluation["perplexity"].values(), other["perplexity"].values()
    assert text_now["dense"] == text_before["dense"]
    assert text_now["next_token"]["kl"] > 0
    assert len([event for event in events if "perplexity is known" in event.get("message", "")]) == 1
    assert other["tasks"]["mine"]["accuracy"]["dense"] == evaluation["tasks"]["mine"]["accuracy"]["dense"]
    assert len(loaded) == 1, "the dense model is loaded once, and not for the pruned one's answers"


@pytest.mark.parametrize("changed", [{"limit": 5}, {"over": "prompt"}])
def test_other_questions_are_asked_anew(changed: dict[str, Any], scene: Any) -> None:
    model, text, directory, *_ = scene
    workspace = directory / f"other-{next(iter(changed))}"
    evaluation, events = run(model, text, workspace, judging=judging(directory / "mine.jsonl", **changed))
    assert not [event for event in events if "answers are known" in event.get("message", "")]
    assert evaluation["tasks"]["mine"]["questions"] == changed.get("limit", 24)
    assert ("prompt_nll" in records(workspace, "mine", "dense")[0]) == ("over" in changed)


def test_a_broken_model_fails_with_the_questions_id(tiny_directory: Callable[[str], Path], tmp_path: Path) -> None:
    model = save_model(tmp_path / "broken", "llama")
    tensors = load_file(model / "model.safetensors")
    tensors["lm_head.weight"][7] = float("nan")
    save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})
    questions = write_questions(tmp_path / "mine.jsonl", question(0, id="q-17"))
    with pytest.raises(EngineError, match=r"mine: the dense .* question 0 \(id q-17\) is not a finite") as found:
        run(model, write_text(tmp_path / "words.jsonl"), tmp_path / "run", judging=judging(questions))
    assert found.value.code == "not_finite"
    assert not (tmp_path / "cache" / "dense").exists(), "nothing broken is kept for later runs"


def test_no_usable_question_fails_and_does_not_score_zero(scene: Any, tmp_path: Path) -> None:
    model, text, *_ = scene
    questions = write_questions(tmp_path / "mine.jsonl", question(0, label=9))
    with pytest.raises(EngineError) as found:
        run(model, text, tmp_path / "run", judging=judging(questions))
    assert found.value.code == "no_usable_question"
    assert (tmp_path / "run" / SELECTION).is_file(), "the stages before it stay done"


def test_a_streamed_run_leaves_written_answers_out_and_says_so(scene: Any, tmp_path: Path) -> None:
    model, text, *_ = scene
    asked = judging(write_questions(tmp_path / "mine.jsonl", *map(question, range(6))))
    sums = write_questions(tmp_path / "gsm8k.jsonl", {"question": "w3 w4", "answer": "w5 #### 7"})
    asked["tasks"].append({"name": "gsm8k", "definition": "gsm8k", "path": str(sums)})
    evaluation, events = run(model, text, tmp_path / "run", judging=asked, execution="streamed")
    assert list(evaluation["tasks"]) == ["mine"]
    assert "every token" in evaluation["not_measured"]["gsm8k"]
    assert any("gsm8k is left out" in event.get("message", "") for event in events)
