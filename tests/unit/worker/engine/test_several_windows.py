"""What runs with several windows or rounds promise: the planned weights, equal logits, the same bytes again."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from app.core.windows import runs
from tests.acceptance.barriers import Barriers
from tests.unit.worker.engine.recipes import make_recipe, recipe_json, write_text
from tests.unit.worker.engine.tiny_models import save_model
from worker.engine import pipeline
from worker.engine.context import StageContext
from worker.engine.decoder import load_decoder
from worker.engine.errors import EngineError
from worker.engine.evaluation.perplexity import likelihoods
from worker.engine.events import Collected, Emitter
from worker.engine.execution import shared_model
from worker.engine.hidden_states import without
from worker.engine.ledger import Ledger
from worker.engine.recipe import Recipe
from worker.engine.steps import Stage
from worker.engine.text import held_out_windows
from worker.engine.verification import make_probe

ROOT = Path(__file__).parents[4]
LAYERS = 9
TWO_WINDOWS = {"mode": "one_shot", "windows": 2, "rounds": 1}
TWO_ROUNDS = {"mode": "iterative", "windows": 1, "rounds": 2}
MODES = {"windows": TWO_WINDOWS, "rounds": TWO_ROUNDS}
BY_NAME = {stage.name: stage for stage in pipeline.STAGES}
OF_A_ROUND = ["fetch", "score", "select", "train", "assemble", "verify"]
Finished = tuple[Recipe, Path, list[Any]]


def compare_here(context: StageContext) -> None:
    """Verify in this process, which costs no start of another."""
    probe = make_probe(context, shared_model(context))
    written = load_decoder(context.workspace / "checkpoint", "cpu")
    torch.testing.assert_close(written.logits(probe["input_ids"])[0], probe["logits"], rtol=1e-4, atol=1e-4)
    context.write_json("verification.json", {"logits_max_difference": 0.0})


HERE = tuple(replace(stage, run=compare_here) if stage.name == "verify" else stage for stage in pipeline.STAGES)
TO_CHECKPOINT = tuple(stage for stage in HERE if stage.name in (*OF_A_ROUND, "heal"))


def run(recipe: Recipe, workspace: Path, stages: tuple[Stage, ...] = HERE) -> list[Any]:
    sink = Collected()
    pipeline.run_pipeline(StageContext(recipe, workspace, workspace.parent / "cache", Emitter(sink), "cpu"), stages)
    return sink.events


def ran(events: list[Any]) -> list[str]:
    return [e["stage"] for e in events if e["event"] == "stage_finished" and not e["skipped"]]


def read(workspace: Path, name: str) -> Any:
    return json.loads((workspace / f"{name}.json").read_text())


def checkpoint(workspace: Path) -> dict[str, str]:
    entry = Ledger(workspace).entry("assemble")
    assert entry is not None
    return entry.hashes


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("model"), "llama", num_hidden_layers=LAYERS)


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_text(tmp_path_factory.mktemp("text") / "words.jsonl")


@pytest.fixture(scope="module", params=MODES)
def finished(
    request: pytest.FixtureRequest, model: Path, text: Path, tmp_path_factory: pytest.TempPathFactory
) -> Finished:
    """A run of each mode, four layers fewer, proven in fresh processes."""
    workspace = tmp_path_factory.mktemp("finished") / "run"
    recipe = make_recipe(model, text, target={"layers": 4}, selection=MODES[request.param])
    return recipe, workspace, run(recipe, workspace, pipeline.STAGES)


@pytest.fixture
def copied(finished: Finished, tmp_path: Path) -> tuple[Recipe, Path]:
    return finished[0], Path(shutil.copytree(finished[1], tmp_path / "run"))


def test_the_written_checkpoint_weighs_what_was_planned_and_has_the_logits_of_memory(finished: Finished) -> None:
    recipe, workspace, _ = finished
    selection, report = read(workspace, "selection"), read(workspace, "report")
    assert report["metrics"]["parameters"] == selection["parameters"]
    assert selection["sparsity"] == pytest.approx(report["metrics"]["sparsity"])
    config = json.loads((workspace / "checkpoint" / "config.json").read_text())
    assert config["num_hidden_layers"] == LAYERS - 4 == len(selection["layers"])
    kept = [layer for layer in selection["layers"] if layer is not None]
    assert sorted([*kept, *selection["removed_layers"]]) == list(range(LAYERS)), "in the dense model's numbers"
    assert report["removed_layers"] == selection["removed_layers"]
    dense = load_file(Path(recipe.model.path) / "model.safetensors")
    written = load_file(workspace / "checkpoint" / "model.safetensors")
    for place, layer in enumerate(selection["layers"]):
        name = "model.layers.{}.mlp.down_proj.weight"
        if layer is not None:
            assert torch.equal(written[name.format(place)], dense[name.format(layer)])
    assert report["verification"]["passed"]
    assert len(report["verification"]["generation"]) == 6


def test_stages_keep_their_names_and_say_which_window_or_round(finished: Finished) -> None:
    recipe, _, events = finished
    started = [e for e in events if e["event"] == "stage_started"]
    names = [e["stage"] for e in started]
    if recipe.selection.windows == 2:
        assert names == ["fetch", "score", "select", "train", "train", "assemble", "verify", "evaluate", "benchmark"]
        assert [(e["window"], e["windows"]) for e in started if "window" in e] == [(1, 2), (2, 2)]
    else:
        assert names == [*OF_A_ROUND, *OF_A_ROUND, "evaluate", "benchmark"]
        assert [e["round"] for e in started if "round" in e] == [1] * 6 + [2] * 6


def test_only_cutting_leaves_out_every_removed_layer_and_nothing_else(finished: Finished) -> None:
    recipe, workspace, _ = finished
    dense = load_decoder(Path(recipe.model.path), "cpu")
    context = StageContext(recipe, workspace, workspace, Emitter(), "cpu")
    windows = held_out_windows(context, dense.tokenizer)
    with without(dense, runs(read(workspace, "selection")["removed_layers"])):
        expected = likelihoods(dense, 4, windows=windows, progress=lambda _: None)["dense"].perplexity
    (found,) = read(workspace, "evaluation")["perplexity"].values()
    assert found["cut"] == pytest.approx(expected, rel=1e-5)
    assert found["cut"] != found["dense"]


def test_a_finished_run_is_skipped_whole_and_leaves_no_scaffolding(copied: tuple[Recipe, Path]) -> None:
    recipe, workspace = copied
    before = {path for path in workspace.rglob("*") if path.is_file()}
    assert not list(workspace.glob("rounds/*/checkpoint"))
    assert not list(workspace.rglob("tmp"))
    assert ran(run(recipe, workspace)) == []
    assert {path for path in workspace.rglob("*") if path.is_file()} == before


def test_the_report_has_every_window_and_every_round(finished: Finished) -> None:
    recipe, workspace, _ = finished
    report = read(workspace, "report")
    if recipe.selection.windows == 2:
        assert len(report["selection"]["windows"]) == len(report["training"]["windows"]) == 2
    else:
        assert [len(part["selection"]["removed_layers"]) for part in report["rounds"]] == sorted(
            len(part["selection"]["removed_layers"]) for part in report["rounds"]
        )
        assert all(part["training"]["kept"] in ("trained", "start") for part in report["rounds"])
        assert report["rounds"][-1]["selection"] == report["selection"]


@pytest.mark.parametrize("finished", ["rounds"], indirect=True)
def test_rounds_are_runs_of_one_window_one_on_the_other(
    finished: Finished, model: Path, text: Path, tmp_path: Path
) -> None:
    _, workspace, _ = finished
    for number, source in ((1, model), (2, tmp_path / "1" / "checkpoint")):
        run(make_recipe(source, text, target={"layers": 2}), tmp_path / str(number), TO_CHECKPOINT)
    alone, in_rounds = (place / "checkpoint" / "model.safetensors" for place in (tmp_path / "2", workspace))
    assert alone.read_bytes() == in_rounds.read_bytes()


@pytest.mark.parametrize("stage", ["select", "train", "verify"])
def test_a_run_that_stopped_in_the_second_window_or_round_goes_on_to_the_same_bytes(
    finished: Finished, tmp_path: Path, stage: str
) -> None:
    recipe, workspace, _ = finished
    calls = 0
    second = 2 if recipe.selection.mode == "iterative" or stage == "train" else 1

    def stops(context: StageContext) -> None:
        nonlocal calls
        calls += 1
        if calls == second:
            raise EngineError("stopped", "here", permanent=False)
        BY_NAME[stage].run(context) if stage != "verify" else compare_here(context)

    stopping = tuple(replace(s, run=stops) if s.name == stage else s for s in TO_CHECKPOINT)
    with pytest.raises(EngineError, match="here"):
        run(recipe, tmp_path / "run", stopping)
    again = ran(run(recipe, tmp_path / "run", TO_CHECKPOINT))
    twice = recipe.selection.windows == 2 and stage in ("score", "select")
    expected = [name for name in OF_A_ROUND[OF_A_ROUND.index(stage) :] for _ in range(1 + (twice and name == "train"))]
    assert again == expected, "what was done before is not done again"
    assert checkpoint(tmp_path / "run") == checkpoint(workspace)


def test_what_a_later_round_used_up_is_made_again_only_where_it_is_needed(
    copied: tuple[Recipe, Path],
) -> None:
    recipe, workspace = copied
    before = checkpoint(workspace)
    if recipe.selection.windows == 2:
        (workspace / "windows" / "2" / "replacement.safetensors").unlink()
        assert ran(run(recipe, workspace)) == ["train"]
    else:
        (workspace / "replacement.safetensors").unlink()
        assert ran(run(recipe, workspace)) == ["assemble", "train"], "of the first round, and of the second"
        assert not (workspace / "rounds" / "1" / "checkpoint").exists()
    assert checkpoint(workspace) == before


@pytest.mark.parametrize("finished", ["windows"], indirect=True)
def test_other_weights_in_the_same_place_run_everything_again(
    copied: tuple[Recipe, Path], model: Path, tmp_path: Path
) -> None:
    recipe, workspace = copied
    other = save_model(tmp_path / "model", "llama", num_hidden_layers=LAYERS, seed=1)
    moved = replace(recipe, model=replace(recipe.model, path=str(other)))
    trained = ran(run(moved, workspace)).count("train")
    assert trained == 2


def test_a_run_that_is_killed_in_the_second_window_or_round_goes_on_to_the_same_bytes(
    finished: Finished, tmp_path: Path
) -> None:
    recipe, workspace, _ = finished
    path = tmp_path / "recipe.json"
    path.write_text(json.dumps(recipe.to_json()))
    flags = ["--recipe", path, "--out", tmp_path / "run", "--cache", tmp_path / "cache"]
    # The first window or round is there already, to save the time.
    shutil.copytree(workspace, tmp_path / "run")
    for name in ("training.json", "replacement.safetensors", "windows/2/training.json"):
        (tmp_path / "run" / name).unlink(missing_ok=True)
    command = [sys.executable, "-m", "worker.engine", "--json", *map(str, flags)]
    # However late the signal comes, the stage is not over.
    held = os.environ | Barriers(tmp_path / "barriers", only="train").environment
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=held)
    assert process.stdout is not None
    with process.stdout:
        for line in process.stdout:
            event = json.loads(line)
            second = 2 in (event.get("window"), event.get("round"))
            if event["event"] == "stage_started" and event["stage"] == "train" and second:
                process.send_signal(signal.SIGKILL)
                break
    assert process.wait(timeout=300) == -signal.SIGKILL
    assert "train" in ran(run(recipe, tmp_path / "run"))
    assert checkpoint(tmp_path / "run") == checkpoint(workspace)


KINDS: list[tuple[str, str, dict[str, Any], str]] = [
    ("llama", "auto", {"kind": "none"}, "rounds"),
    ("llama", "auto", {"kind": "layer", "layers": 2}, "windows"),
    ("gemma2", "auto", {"kind": "layer"}, "windows"),
    ("gpt_neox", "auto", {"kind": "linear_merged", "init": "closed_form"}, "windows"),
    ("gpt_neox", "auto", {"kind": "linear_merged", "init": "closed_form"}, "rounds"),
    ("llama", "native", {"kind": "swiglu"}, "windows"),
    ("opt", "native", {"kind": "ffn"}, "rounds"),
]


@pytest.mark.parametrize(
    ("family", "form", "kind", "mode"), KINDS, ids=[f"{row[0]}-{row[2]['kind']}-{row[3]}" for row in KINDS]
)
def test_every_kind_that_ends_in_a_stock_architecture_has_the_logits_of_memory(
    tmp_path: Path, text: Path, family: str, form: str, kind: dict[str, Any], mode: str
) -> None:
    changes = recipe_json(tmp_path, None)["replacement"] | kind
    recipe = make_recipe(
        save_model(tmp_path / "model", family, num_hidden_layers=LAYERS),
        text,
        target={"sparsity": 0.3},
        selection=MODES[mode],
        replacement=changes,
        output={"dtype": None, "format": form},
    )
    run(recipe, tmp_path / "run")
    report = read(tmp_path / "run", "report")
    assert report["metrics"]["parameters"] == report["selection"]["parameters"]


HEALING = {
    "kind": "lora", "rank": 4, "alpha": 4.0, "epochs": 10, "learning_rate": 1e-2, "tokens": 256, "batch_size": 2,
}  # fmt: skip


def test_healing_takes_what_stayed_and_what_was_put_in_for_every_window(
    model: Path, text: Path, tmp_path: Path
) -> None:
    recipe = make_recipe(model, text, target={"layers": 4}, selection=TWO_WINDOWS, healing=HEALING)
    run(recipe, tmp_path / "run", TO_CHECKPOINT)
    healed = read(tmp_path / "run", "healing")
    assert (healed["kept"], healed["maps"]) == ("trained", 7 * (LAYERS - 4))


def test_of_several_rounds_the_last_is_healed(model: Path, text: Path, tmp_path: Path) -> None:
    recipe = make_recipe(model, text, target={"layers": 4}, selection=TWO_ROUNDS, healing={**HEALING, "epochs": 1})
    events = run(recipe, tmp_path / "run", TO_CHECKPOINT)
    assert ran(events).count("train") == 3, "a training in each round, and the healing"
    assert read(tmp_path / "run", "healing")["maps"] == 7 * (LAYERS - 4)
    assert not (tmp_path / "run" / "rounds" / "1" / "healing.json").exists()
    assert ran(run(recipe, tmp_path / "run", TO_CHECKPOINT)) == []


@pytest.mark.parametrize("selection", MODES.values(), ids=MODES)
def test_text_from_the_model_itself_is_the_dense_models_in_every_window_and_round(
    model: Path, tmp_path: Path, selection: dict[str, Any]
) -> None:
    changes = recipe_json(tmp_path, None)["replacement"] | {"epochs": 1}
    recipe = make_recipe(model, None, target={"layers": 4}, selection=selection, replacement=changes)
    events = run(recipe, tmp_path / "run")
    assert sum("sampling" in e.get("message", "") for e in events) == 1
    assert ran(run(recipe, tmp_path / "run")) == []


@pytest.mark.parametrize("selection", MODES.values(), ids=MODES)
def test_streamed_and_resident_runs_write_the_same_bytes(
    model: Path, text: Path, tmp_path: Path, selection: dict[str, Any]
) -> None:
    for execution in ("resident", "streamed"):
        recipe = make_recipe(model, text, target={"layers": 3}, selection=selection, execution=execution)
        run(recipe, tmp_path / execution, tuple(stage for stage in HERE if stage.name != "benchmark"))
    resident, streamed = (tmp_path / execution for execution in ("resident", "streamed"))
    assert checkpoint(streamed) == checkpoint(resident)
    found = [next(iter(read(place, "evaluation")["perplexity"].values())) for place in (resident, streamed)]
    assert found[0]["cut"] == found[1]["cut"]


@pytest.mark.parametrize("selection", MODES.values(), ids=MODES)
def test_most_of_a_model_may_go(model: Path, text: Path, tmp_path: Path, selection: dict[str, Any]) -> None:
    changes = recipe_json(tmp_path, None)["replacement"] | {"epochs": 1}
    recipe = make_recipe(model, text, target={"sparsity": 0.6}, selection=selection, replacement=changes)
    run(recipe, tmp_path / "run", TO_CHECKPOINT)
    assert len(read(tmp_path / "run", "selection")["layers"]) <= LAYERS - 5


def test_a_target_too_small_for_so_many_rounds_is_refused_with_the_numbers(
    model: Path, text: Path, tmp_path: Path
) -> None:
    recipe = make_recipe(model, text, target={"layers": 1}, selection=TWO_ROUNDS)
    with pytest.raises(EngineError, match="2 rounds each make it smaller") as caught:
        run(recipe, tmp_path / "run")
    assert caught.value.code == "bad_target"
