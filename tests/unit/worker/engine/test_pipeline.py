"""What the whole run promises: resumed runs end in the same bytes, and what is done is not done again."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.barriers import Barriers
from tests.unit.worker.engine.recipes import make_recipe, recipe_json, write_text
from worker.engine import pipeline
from worker.engine.context import StageContext
from worker.engine.errors import EngineError
from worker.engine.events import Collected, Emitter
from worker.engine.ledger import Ledger
from worker.engine.recipe import Recipe
from worker.engine.steps import Stage

NAMES = ["fetch", "score", "select", "train", "assemble", "verify", "evaluate", "benchmark"]
ROOT = Path(__file__).parents[4]


# Verification starts a fresh interpreter, which is most of a tiny run's time.
TO_CHECKPOINT = tuple(
    stage for stage in pipeline.STAGES if stage.name in (*NAMES[: NAMES.index("assemble") + 1], "heal")
)
WITHOUT_VERIFY = tuple(stage for stage in pipeline.STAGES if stage.name != "verify")


def run(recipe: Recipe, workspace: Path, stages: tuple[Stage, ...] = pipeline.STAGES) -> list[Any]:
    sink = Collected()
    pipeline.run_pipeline(StageContext(recipe, workspace, workspace.parent / "cache", Emitter(sink), "cpu"), stages)
    return sink.events


def ran(events: list[Any]) -> list[str]:
    return [e["stage"] for e in events if e["event"] == "stage_finished" and not e["skipped"]]


def checkpoint_hashes(workspace: Path) -> dict[str, str]:
    entry = Ledger(workspace).entry("assemble")
    assert entry is not None
    return entry.hashes


@pytest.fixture(scope="module")
def finished(
    tiny_directory: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Recipe, Path, list[Any]]:
    """A finished run of a tiny model: (recipe, workspace, events)."""
    directory = tmp_path_factory.mktemp("finished")
    recipe = make_recipe(tiny_directory("llama"), write_text(directory / "words.jsonl"))
    return recipe, directory / "run", run(recipe, directory / "run")


@pytest.fixture
def copied(finished: tuple[Recipe, Path, list[Any]], tmp_path: Path) -> tuple[Recipe, Path]:
    recipe, workspace, _ = finished
    return recipe, Path(shutil.copytree(workspace, tmp_path / "run"))


def test_every_stage_runs_once_in_order_and_tells_its_outputs(finished: tuple[Recipe, Path, list[Any]]) -> None:
    _, workspace, events = finished
    assert [e["stage"] for e in events if e["event"] == "stage_started"] == NAMES
    assert ran(events) == NAMES
    assert events[-1]["event"] == "finished"
    for event in events:
        assert event["time"] > 0
        if event["event"] == "stage_finished":
            assert all((workspace / path).is_file() for path in event["outputs"])
    assert not (workspace / "tmp").exists()
    report = json.loads((workspace / "report.json").read_text())
    assert set(report["stage_seconds"]) == set(NAMES)
    assert report["metrics"]["perplexity_held_out"] is True


def test_what_a_picture_is_drawn_from_is_told_when_it_is_known(finished: tuple[Recipe, Path, list[Any]]) -> None:
    _, workspace, events = finished
    (scores,) = [e for e in events if e["event"] == "scores"]
    table = json.loads((workspace / "scores.json").read_text())["table"]
    for told, row in zip(scores["table"], table, strict=True):
        assert told == pytest.approx([score for score in row if score is not None], rel=1e-3)
    (selected,) = [e for e in events if e["event"] == "selected"]
    selection = json.loads((workspace / "selection.json").read_text())
    assert selected["windows"] == [[window["start"], window["end"]] for window in selection["windows"]]
    (phase,) = json.loads((workspace / "training.json").read_text())["phases"]
    points = [e for e in events if e["event"] == "metric" and e["stage"] == "train" and "step" in e]
    held_out = [{"step": e["step"], "loss": e["held_out_loss"]} for e in points if "held_out_loss" in e]
    assert held_out == phase["held_out"]
    assert [e["step"] for e in points if "loss" in e] == [step["step"] for step in phase["steps"]]
    assert {e["phase"] for e in points} == {phase["loss"]}
    assert len({e["steps"] for e in points}) == 1


def test_the_planned_parameters_are_the_written_ones(finished: tuple[Recipe, Path, list[Any]]) -> None:
    _, workspace, _ = finished
    selection = json.loads((workspace / "selection.json").read_text())
    report = json.loads((workspace / "report.json").read_text())
    assert selection["removed_count"] == 3
    assert report["metrics"]["parameters"] == selection["parameters"]


def test_a_finished_run_is_skipped_whole(copied: tuple[Recipe, Path]) -> None:
    recipe, workspace = copied
    events = run(recipe, workspace)
    assert ran(events) == []
    assert all(e["skipped"] for e in events if e["event"] == "stage_finished")


def test_two_runs_with_one_seed_write_the_same_checkpoint(copied: tuple[Recipe, Path], tmp_path: Path) -> None:
    recipe, workspace = copied
    run(recipe, tmp_path / "again", TO_CHECKPOINT)
    assert checkpoint_hashes(tmp_path / "again") == checkpoint_hashes(workspace)


def test_a_change_runs_what_depends_on_it_and_nothing_else(copied: tuple[Recipe, Path]) -> None:
    recipe, workspace = copied
    other = replace(recipe, benchmark=replace(recipe.benchmark, new_tokens=5))
    assert ran(run(other, workspace)) == ["benchmark"]
    other = replace(other, replacement=replace(other.replacement, learning_rate=2e-3))
    assert ran(run(other, workspace, WITHOUT_VERIFY)) == ["train", "assemble", "evaluate", "benchmark"]


def test_another_text_to_judge_by_measures_no_speed_again(
    tiny_directory: Callable[[str], Path], tmp_path: Path
) -> None:
    text = write_text(tmp_path / "words.jsonl")
    first = make_recipe(tiny_directory("llama"), text, evaluation=[{"path": str(text), "column": "text", "name": "a"}])
    run(first, tmp_path / "run", WITHOUT_VERIFY)
    second = replace(first, evaluation=(replace(first.evaluation[0], name="b"),))
    assert ran(run(second, tmp_path / "run", WITHOUT_VERIFY)) == ["evaluate"]


def test_a_damaged_output_is_made_again(copied: tuple[Recipe, Path]) -> None:
    recipe, workspace = copied
    before = checkpoint_hashes(workspace)
    with (workspace / "checkpoint" / "model.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x01")
    assert ran(run(recipe, workspace)) == ["assemble"]
    assert checkpoint_hashes(workspace) == before


def test_a_failed_stage_leaves_the_ones_before_it_done(copied: tuple[Recipe, Path]) -> None:
    recipe, workspace = copied
    other = replace(recipe, replacement=replace(recipe.replacement, epochs=1))

    def fails(_: StageContext) -> None:
        raise EngineError("disk_full", "no room", permanent=False)

    failing = tuple(replace(s, run=fails) if s.name == "assemble" else s for s in TO_CHECKPOINT)
    with pytest.raises(EngineError, match="no room"):
        run(other, workspace, failing)
    assert not (workspace / "checkpoint").exists()
    assert ran(run(other, workspace, TO_CHECKPOINT)) == ["assemble"]


def test_a_full_disk_in_any_stage_tells_needed_and_free(copied: tuple[Recipe, Path]) -> None:
    recipe, workspace = copied

    def fills(context: StageContext) -> None:
        context.temporary.joinpath("big").write_bytes(b"x")
        with Path("/dev/full").open("wb", buffering=0) as full:
            full.write(b"x")

    with pytest.raises(EngineError, match=r"\d+ bytes are needed in .* and \d+ are free") as caught:
        run(recipe, workspace, (replace(pipeline.STAGES[0], name="other", run=fills),))
    assert caught.value.code == "disk_full"
    assert not (workspace / "tmp").exists()


KINDS: list[dict[str, Any]] = [
    {"kind": "none"}, {"kind": "ffn"}, {"kind": "swiglu"}, {"kind": "linear_merged", "init": "closed_form"},
    {"kind": "linear_residual", "init": "closed_form"}, {"kind": "layer", "layers": 2, "init": "closed_form"},
]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind["kind"])
def test_every_kind_goes_all_the_way(
    tiny_directory: Callable[[str], Path], tmp_path: Path, kind: dict[str, Any]
) -> None:
    changes = recipe_json(tmp_path, None)["replacement"] | kind
    recipe = make_recipe(tiny_directory("opt"), write_text(tmp_path / "t.jsonl"), replacement=changes)
    assert ran(run(recipe, tmp_path / "run", WITHOUT_VERIFY)) == [name for name in NAMES if name != "verify"]
    selection, report = (
        json.loads((tmp_path / "run" / f"{name}.json").read_text()) for name in ("selection", "report")
    )
    assert report["metrics"]["parameters"] == selection["parameters"]
    assert report["training"]["kept"] in ("nothing", "trained", "start", "closed_form")


@pytest.mark.parametrize("metric", ["angular", "euclidean", "dot", "perplexity", "task"])
def test_every_metric_selects_the_window_that_its_table_says(
    tiny_directory: Callable[[str], Path], tmp_path: Path, metric: str
) -> None:
    scoring = {"metric": metric, "sequences": 16, "sequence_length": 16, "adaptive": True}
    replacement = recipe_json(tmp_path, None)["replacement"] | {"kind": "linear_merged", "init": "closed_form"}
    recipe = make_recipe(
        tiny_directory("llama"), write_text(tmp_path / "t.jsonl"), scoring=scoring, replacement=replacement
    )
    run(recipe, tmp_path / "run", pipeline.STAGES[:3])
    scores, selection = (
        json.loads((tmp_path / "run" / f"{name}.json").read_text()) for name in ("scores", "selection")
    )
    allowed = {start: scores["table"][start][1] for start in range(1, 4)}
    pick = max if scores["better"] == "higher" else min
    (window,) = selection["windows"]
    assert window["score"] == pick(value for value in allowed.values() if value is not None)
    assert allowed[window["start"]] == window["score"]
    assert 8 <= scores["sequences"] <= scores["sequences_available"]
    assert str(scores["sequences"]) in scores["stopped"]


def test_text_from_the_model_itself_is_sampled_once_and_kept(
    tiny_directory: Callable[[str], Path], tmp_path: Path
) -> None:
    changes = recipe_json(tmp_path, None)["replacement"] | {"kind": "none"}
    recipe = make_recipe(tiny_directory("llama"), None, replacement=changes)
    first = run(recipe, tmp_path / "one", TO_CHECKPOINT)
    second = run(recipe, tmp_path / "two", TO_CHECKPOINT)
    sampled = [any("sampling" in e.get("message", "") for e in events) for events in (first, second)]
    assert sampled == [True, False]
    text = "text/calibration.jsonl"
    assert (tmp_path / "one" / text).read_bytes() == (tmp_path / "two" / text).read_bytes()


def engine(recipe: Path, workspace: Path) -> list[str]:
    flags = ["--recipe", recipe, "--out", workspace, "--cache", workspace.parent / "cache"]
    return [sys.executable, "-m", "worker.engine", "--json", *map(str, flags)]


@pytest.mark.parametrize(
    ("stage", "how"), [("train", signal.SIGKILL), ("assemble", signal.SIGKILL), ("train", signal.SIGTERM)]
)
def test_a_killed_run_goes_on_to_the_same_checkpoint(
    finished: tuple[Recipe, Path, list[Any]], tmp_path: Path, stage: str, how: signal.Signals
) -> None:
    recipe, workspace, _ = finished
    path = tmp_path / "recipe.json"
    path.write_text(json.dumps(recipe.to_json()))
    # However late the signal comes, the stage is not over.
    held = os.environ | Barriers(tmp_path / "barriers", only=stage).environment
    command = engine(path, tmp_path / "run")
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=held)
    assert process.stdout is not None
    with process.stdout:
        for line in process.stdout:
            event = json.loads(line)
            if event["event"] == "stage_started" and event["stage"] == stage:
                time.sleep(0.02)
                process.send_signal(how)
                break
    code = process.wait(timeout=300)
    assert code == (143 if how is signal.SIGTERM else -signal.SIGKILL)
    assert Ledger(tmp_path / "run").entry("select") is not None
    assert Ledger(tmp_path / "run").entry(stage) is None
    assert ran(run(recipe, tmp_path / "run", TO_CHECKPOINT))[0] == stage
    assert checkpoint_hashes(tmp_path / "run") == checkpoint_hashes(workspace)


def test_a_disk_that_is_full_for_the_ledger_is_told_as_such(
    finished: tuple[Recipe, Path, list[Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Ledger, "record", full)
    with pytest.raises(EngineError) as caught:
        run(finished[0], tmp_path / "run", pipeline.STAGES[:1])
    assert caught.value.code == "disk_full"
