"""Resident or streamed: how that is chosen, what happens when memory runs out, and that the result is the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.unit.worker.engine.recipes import make_recipe, recipe_json, write_text
from tests.unit.worker.engine.tiny_models import save_model
from worker.engine import execution, pipeline
from worker.engine.__main__ import make_parser
from worker.engine.context import StageContext
from worker.engine.errors import EngineError
from worker.engine.events import Collected, Emitter
from worker.engine.execution import choose, left_in_container, resident_model, shared_model, within_memory
from worker.engine.hidden_states import LayeredModel
from worker.engine.ledger import Ledger
from worker.engine.report import metrics
from worker.engine.request import recipe_from
from worker.engine.steps import Stage

ROOT = Path(__file__).parents[4]
WITHOUT_VERIFY = tuple(stage for stage in pipeline.STAGES if stage.name != "verify")


def through(name: str) -> tuple[Stage, ...]:
    """The stages up to that one."""
    return WITHOUT_VERIFY[: [stage.name for stage in WITHOUT_VERIFY].index(name) + 1]


def context_of(model: Path, directory: Path, execution: str = "auto", kind: str = "layer") -> StageContext:
    text = write_text(directory / "words.jsonl")
    replacement = recipe_json(model, text)["replacement"] | {"kind": kind}
    recipe = make_recipe(model, text, execution=execution, replacement=replacement)
    return StageContext(recipe, directory / execution, directory / "cache", Emitter(Collected()), "cpu")


def run(context: StageContext, stages: tuple[Stage, ...] = WITHOUT_VERIFY) -> dict[str, Any]:
    return pipeline.run_pipeline(context, stages)


def hashes(context: StageContext, stage: str) -> dict[str, str]:
    entry = Ledger(context.workspace).entry(stage)
    assert entry is not None
    return entry.hashes


@pytest.mark.parametrize(
    ("family", "kind"), [("llama", "layer"), ("opt", "ffn"), ("gpt_neox", "swiglu"), ("qwen3", "none")]
)
def test_both_write_the_same_scores_window_checkpoint_and_perplexities(
    tiny_directory: Callable[[str], Path], tmp_path: Path, family: str, kind: str
) -> None:
    contexts = [context_of(tiny_directory(family), tmp_path, how, kind) for how in ("resident", "streamed")]
    resident, streamed = map(run, contexts)
    for stage in ("score", "select", "assemble"):
        assert hashes(contexts[1], stage) == hashes(contexts[0], stage)
    assert streamed["evaluation"]["perplexity"] == resident["evaluation"]["perplexity"]
    assert streamed["metrics"]["parameters"] == resident["metrics"]["parameters"]
    assert [report["execution"]["kind"] for report in (resident, streamed)] == ["resident", "streamed"]


def test_a_streamed_run_says_what_it_did_not_measure_and_proves_its_checkpoint(tmp_path: Path) -> None:
    model = save_model(tmp_path / "model", "llama", dtype=torch.bfloat16)
    report = run(context_of(model, tmp_path, "streamed"), pipeline.STAGES)
    assert report["verification"]["passed"]
    assert report["verification"]["compute_dtype"] == "bfloat16"
    found = report["metrics"]
    assert found["speedup"] is None
    assert found["decode_tokens_per_second"] == {"dense": None, "pruned": None}
    assert set(found["not_measured"]) == {"dense", "pruned"}
    assert found["sparsity"] == pytest.approx(report["selection"]["sparsity"])
    assert report["samples"] == []
    assert report["execution"] == {"kind": "streamed", "reason": "the recipe asks for it"}


def test_a_pruned_model_that_fits_is_measured_alone_where_the_dense_one_does_not() -> None:
    spread = {"median": 5.0}
    measured = {"decode_tokens_per_second": spread, "peak_memory_bytes": 7}
    benchmark = {
        "settings": [{"models": {"pruned": measured}}],
        "models": {"dense": {"parameters": 4}, "pruned": {"parameters": 3}},
        "not_measured": {"dense": "too large"},
    }
    found = metrics({"benchmark": benchmark}, {})
    assert found["decode_tokens_per_second"] == {"dense": None, "pruned": 5.0}
    assert found["time_to_first_token_s"] == {"dense": None, "pruned": None}
    assert found["speedup"] is None
    assert found["not_measured"] == {"dense": "too large"}


def test_free_memory_decides_and_the_sizes_are_told(
    tiny_directory: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_directory("llama")
    assert choose("auto", model, "cpu").kind == "resident"
    monkeypatch.setattr(execution, "WORKING_ROOM", 10**18)
    choice = choose("auto", model, "cpu")
    assert choice.kind == "streamed"
    assert choice.reason.startswith("1000000000.00 GB for the parameters in float32 and to work in, ")
    assert choose("resident", model, "cpu").kind == "resident"
    context = context_of(model, tmp_path)
    assert shared_model(context).execution == "streamed"
    assert context.read_json("execution.json")["kind"] == "streamed"


def test_the_limit_of_a_container_counts_and_its_page_cache_does_not(tmp_path: Path) -> None:
    assert left_in_container(tmp_path) > 1 << 60
    (tmp_path / "memory.stat").write_text("anon 300\nfile 900\nkernel 50\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert left_in_container(tmp_path) > 1 << 60
    (tmp_path / "memory.max").write_text("1000\n")
    assert left_in_container(tmp_path) == 650


def test_a_model_that_cannot_be_streamed_runs_resident_unless_streaming_was_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetensors.torch import load_file, save_file

    model = save_model(tmp_path / "model", "llama")
    tensors = load_file(model / "model.safetensors")
    tensors["other"] = tensors.pop("model.layers.0.input_layernorm.weight")
    save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})
    monkeypatch.setattr(execution, "WORKING_ROOM", 10**18)
    context = context_of(model, tmp_path)
    assert shared_model(context).execution == "resident"
    assert "cannot be read layer by layer" in context.read_json("execution.json")["reason"]
    with pytest.raises(EngineError, match="holds it whole") as caught:
        shared_model(context_of(model, tmp_path, "streamed"))
    assert caught.value.code == "cannot_stream"


def test_a_dense_model_that_does_not_fit_beside_the_pruned_one_makes_no_streamed_run(
    tiny_directory: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = context_of(tiny_directory("llama"), tmp_path, kind="none")
    run(context, through("evaluate"))
    context.memo.pop(execution.DENSE)
    monkeypatch.setattr(execution, "WORKING_ROOM", 10**18)
    report = run(context)
    assert report["execution"]["kind"] == "resident"
    assert set(report["metrics"]["not_measured"]) == {"dense"}
    assert report["metrics"]["decode_tokens_per_second"]["pruned"] > 0
    assert set(report["metrics"]["flops_per_token"]) == {"dense", "pruned"}


def test_what_needs_the_whole_model_is_named_where_it_is_streamed(
    tiny_directory: Callable[[str], Path], tmp_path: Path
) -> None:
    with pytest.raises(EngineError, match="a loss of logits needs the whole model in memory") as caught:
        resident_model(context_of(tiny_directory("llama"), tmp_path, "streamed"), "a loss of logits")
    assert caught.value.code == "needs_resident"


def test_text_from_the_model_itself_needs_it_whole(tiny_directory: Callable[[str], Path], tmp_path: Path) -> None:
    recipe = make_recipe(tiny_directory("llama"), None, execution="streamed")
    context = StageContext(recipe, tmp_path / "run", tmp_path / "cache", Emitter(Collected()), "cpu")
    with pytest.raises(EngineError, match="name a calibration text") as caught:
        run(context)
    assert caught.value.code == "needs_resident"


class Hungry:
    """Work that runs out of memory unless it is let down far enough."""

    def __init__(self, *enough: tuple[str, int]) -> None:
        self.enough, self.tried = enough, list[tuple[str, int]]()

    def __call__(self, model: LayeredModel, size: int) -> str:
        self.tried.append((model.execution, size))
        if (model.execution, size) not in self.enough:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
        return "done"


def test_memory_that_runs_out_halves_the_batch_then_streams_then_fails_with_the_sizes(
    tiny_directory: Callable[[str], Path], tmp_path: Path
) -> None:
    context = context_of(tiny_directory("llama"), tmp_path)
    work = Hungry(("resident", 1))
    assert within_memory(context, 5, work) == "done"
    assert work.tried == [("resident", 5), ("resident", 2), ("resident", 1)]
    assert context.read_json("execution.json")["kind"] == "resident"
    work = Hungry(("streamed", 2))
    assert within_memory(context, 2, work) == "done"
    assert work.tried == [("resident", 2), ("resident", 1), ("streamed", 2)]
    assert context.read_json("execution.json")["reason"] == "memory ran out with one sequence at a time"
    with pytest.raises(EngineError, match=r"one sequence of 16 tokens .* GB that are free .* 20\.00 GiB") as caught:
        within_memory(context, 2, Hungry())
    assert caught.value.code == "out_of_memory"
    assert not caught.value.permanent


def test_the_written_checkpoint_is_streamed_too_when_memory_runs_out(
    tiny_directory: Callable[[str], Path], tmp_path: Path
) -> None:
    context = context_of(tiny_directory("opt"), tmp_path, kind="ffn")
    run(context, through("assemble"))
    work = Hungry(("streamed", 1))
    assert within_memory(context, 1, work, written=True) == "done"
    assert work.tried == [("resident", 1), ("streamed", 1)]
    assert shared_model(context).execution == "resident"


def test_a_recipe_that_wants_the_model_resident_is_not_streamed(
    tiny_directory: Callable[[str], Path], tmp_path: Path
) -> None:
    work = Hungry(("streamed", 1))
    with pytest.raises(EngineError, match="let execution be auto"):
        within_memory(context_of(tiny_directory("llama"), tmp_path, "resident"), 2, work)
    assert work.tried == [("resident", 2), ("resident", 1)]


def test_other_failures_are_not_taken_for_a_lack_of_memory(
    tiny_directory: Callable[[str], Path], tmp_path: Path
) -> None:
    def fails(_: LayeredModel, __: int) -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        within_memory(context_of(tiny_directory("llama"), tmp_path), 4, fails)


UNDER_A_LIMIT = """
import json, resource, sys
from pathlib import Path
import torch
from tests.unit.worker.engine.test_execution import context_of
from worker.engine.execution import shared_model, within_memory

context = context_of(Path(sys.argv[1]), Path(sys.argv[2]))
shared_model(context)
data = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmData:"))
limit = int(data.split()[1]) * 1024 + (600 << 20)
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
tried = []

def work(model, size):
    tried.append(size)
    return torch.zeros(size << 28, dtype=torch.uint8).numel()

print(json.dumps([within_memory(context, 8, work), tried]))
"""


def test_a_real_limit_of_the_system_is_understood(tiny_directory: Callable[[str], Path], tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", UNDER_A_LIMIT, str(tiny_directory("llama")), str(tmp_path)],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
        # Every thread's stack is counted as data: as many threads as on any other machine.
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    size, tried = json.loads(done.stdout.splitlines()[-1])
    assert tried == [8, 4, 2]
    assert size == 2 << 28


def test_the_command_line_takes_the_choice(tiny_directory: Callable[[str], Path], tmp_path: Path) -> None:
    flags = ["--model", str(tiny_directory("llama")), "--out", str(tmp_path), "--layers", "1"]
    assert recipe_from(make_parser().parse_args(flags)).execution == "auto"
    assert recipe_from(make_parser().parse_args([*flags, "--execution", "streamed"])).execution == "streamed"
