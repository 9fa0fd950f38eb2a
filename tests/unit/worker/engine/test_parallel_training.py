"""What several processes promise: what one alone computes, the same each time, and nobody left behind."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from safetensors.torch import load_file

from tests.unit.worker.engine.recipes import make_recipe, recipe_json, write_text
from worker.engine import pipeline
from worker.engine.context import StageContext
from worker.engine.errors import EngineError
from worker.engine.events import Collected, Emitter, Event
from worker.engine.recipe import Recipe
from worker.engine.steps import Stage

ROOT = Path(__file__).parents[4]
STAGES = tuple(s for s in pipeline.STAGES if s.name in ("fetch", "score", "select", "train", "heal"))
TO_TRAIN = STAGES[:-1]


@pytest.fixture(scope="module")
def recipe(tiny_directory: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """Two steps of training and healing, over batches of which the last one has fewer sequences than processes."""
    source, text = tiny_directory("llama"), write_text(tmp_path_factory.mktemp("text") / "t.jsonl", rows=9)
    replacement = recipe_json(source, text)["replacement"] | {"loss": "mse+lm", "tokens": 320, "batch_size": 4}
    lora = {"kind": "lora", "rank": 2, "alpha": 4.0, "epochs": 1, "learning_rate": 1e-2, "tokens": 320, "batch_size": 4}
    return make_recipe(source, text, target={"window": [1, 3]}, replacement=replacement, healing=lora)


def run(
    recipe: Recipe, workspace: Path, processes: int, sink: Any = None, stages: tuple[Stage, ...] = TO_TRAIN
) -> Path:
    emit = Emitter(sink or Collected())
    cache = workspace.with_name("cache")
    pipeline.run_pipeline(StageContext(recipe, workspace, cache, emit, "cpu", processes=processes), stages)
    return workspace


def losses(workspace: Path, name: str) -> list[float]:
    phases = json.loads((workspace / name).read_text())["phases"]
    return [point["loss"] for phase in phases for kind in ("steps", "held_out") for point in phase[kind]]


def peers() -> list[psutil.Process]:
    return [p for p in psutil.Process().children(recursive=True) if "worker.engine.training.peers" in p.cmdline()]


@pytest.fixture(scope="module")
def two(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trained by two processes."""
    return run(recipe, tmp_path_factory.mktemp("two") / "run", 2)


def assert_same_losses(first: Path, second: Path, name: str) -> None:
    found = json.loads((first / name).read_text())
    assert found["sequences"]["train"] % 4 == 1, "the last batch leaves one of the two without a sequence"
    assert losses(second, name) == pytest.approx(losses(first, name), rel=1e-4)


def test_two_processes_train_and_heal_as_one_does(recipe: Recipe, two: Path, tmp_path: Path) -> None:
    alone = run(recipe, tmp_path / "alone", 1, stages=STAGES)
    assert_same_losses(alone, two, "training.json")
    one, other = (load_file(path / "replacement.safetensors") for path in (alone, two))
    # Of most weights of each tensor: AdamW makes a full step out of a gradient that is only rounding noise too.
    assert all((one[name] - other[name]).abs().median() < 1e-5 for name in one)
    run(recipe, two, 2, stages=STAGES)
    assert_same_losses(alone, two, "healing.json")
    assert [json.loads((two / f"{name}.json").read_text())["processes"] for name in ("training", "healing")] == [2, 2]
    assert peers() == []


def test_the_same_number_of_processes_gives_the_same_bytes(recipe: Recipe, two: Path, tmp_path: Path) -> None:
    again = run(recipe, tmp_path / "again", 2)
    assert losses(two, "training.json") == losses(again, "training.json")
    assert (two / "replacement.safetensors").read_bytes() == (again / "replacement.safetensors").read_bytes()


class KillsAPeer(Collected):
    """Ends the other process at the first step."""

    def write(self, event: Event) -> None:
        super().write(event)
        if event["event"] == "metric":
            for peer in peers():
                peer.send_signal(signal.SIGKILL)


def test_a_process_that_is_killed_is_the_failure_of_the_run_and_leaves_none(recipe: Recipe, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="training process 2 of 2 ended with code -9") as caught:
        run(recipe, tmp_path / "run", 2, KillsAPeer())
    assert caught.value.code == "peer_failed"
    assert not caught.value.permanent
    assert peers() == []


def test_the_others_end_with_the_engine_even_where_it_is_killed(recipe: Recipe, tmp_path: Path) -> None:
    path = tmp_path / "recipe.json"
    # Long enough to be in the middle of it.
    path.write_text(json.dumps(recipe.to_json() | {"replacement": recipe.to_json()["replacement"] | {"epochs": 9999}}))
    command = [sys.executable, "-m", "worker.engine", "--json", "--processes", "2", "--recipe", str(path),
               "--out", str(tmp_path / "run"), "--cache", str(tmp_path / "cache")]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as engine:
        assert engine.stdout
        for line in engine.stdout:
            if json.loads(line)["event"] == "metric":
                break
        found = peers()
        engine.kill()
    assert len(found) == 1
    _, alive = psutil.wait_procs(found, timeout=120)
    assert alive == []
