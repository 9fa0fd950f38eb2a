"""What the verify, evaluate and benchmark stages promise about a written checkpoint, on a tiny model."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from app.core.safetensors_file import SINGLE_FILE
from tests.unit.worker.engine.tiny_models import LAYERS, random_replacement, save_model
from worker.engine import assembly, benchmark, evaluation, fetch, request_checks, verification, verification_script
from worker.engine.context import StageContext
from worker.engine.errors import EngineError
from worker.engine.events import Collected, Emitter
from worker.engine.execution import resident_model, shared_model
from worker.engine.recipe import Recipe
from worker.engine.report import write_report
from worker.engine.training import stage as training_stage

GOOD: dict[str, Any] = {
    "project_importable": False, "loading": {}, "logits_max_difference": 0.0, "logits_max_magnitude": 10.0,
    "generation": {"default": {"same": True, "largest_margin": 0.0}},
}  # fmt: skip


def recipe(model: Path, text: Path, kind: str, fmt: str = "auto", dtype: str | None = None, layers: int = 1) -> Recipe:
    return Recipe.from_json(
        {
            "model": {"path": str(model), "name": "tiny", "revision": "main"},
            "target": {"window": [1, 3]},
            "scoring": {"metric": "cosine", "sequences": 2, "sequence_length": 16, "adaptive": False},
            "replacement": {"kind": kind, "layers": layers, "init": "first", "loss": "mse", "divergence": "forward",
                            "second_epochs": 1, "second_learning_rate": 3e-4, "epochs": 1, "learning_rate": 1e-3,
                            "tokens": 256, "batch_size": 2},
            "calibration": {"path": str(text), "column": "text", "name": "calibration"},
            "evaluation": [{"path": str(text), "column": "text", "name": "words"}],
            "benchmark": {"batch_sizes": [1, 2], "prompt_tokens": [8, 16], "new_tokens": 6, "repeats": 3},
            "output": {"dtype": dtype, "format": fmt},
            "seed": 0, "device": "cpu", "trust_remote_code": False,
        }
    )  # fmt: skip


def unassembled(
    directory: Path, family: str, kind: str, window: tuple[int, int] = (1, 3), **changes: Any
) -> StageContext:
    source = save_model(directory / "model", family)
    words = random.Random(0)
    rows = [{"text": " ".join(f"w{words.randrange(2, 64)}" for _ in range(40))} for _ in range(6)]
    text = directory / "text.jsonl"
    text.write_text("\n".join(map(json.dumps, rows)))
    workspace = directory / "workspace"
    context = StageContext(recipe(source, text, kind, **changes), workspace, directory, Emitter(Collected()), "cpu")
    start, end = window
    removed = list(range(start, end))
    context.write_json(
        "selection.json", {"windows": [{"start": start, "end": end}], "removed_layers": removed, "sparsity": 0.3}
    )
    return context


def make_context(directory: Path, family: str, kind: str, **output: Any) -> StageContext:
    context = unassembled(directory, family, kind, **output)
    if kind != "none":
        block = random_replacement(json.loads((context.model / "config.json").read_text()), kind)
        save_file(block, context.workspace / "replacement.safetensors")
    assembly.run(context)
    return context


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> StageContext:
    """A run through all stages that follow training, with custom code and another dtype."""
    context = make_context(tmp_path_factory.mktemp("run"), "opt", "ffn", dtype="bfloat16")
    fetch.run(context)
    verification.run(context)
    evaluation.run(context)
    benchmark.run(context)
    write_report(context, {"verify": 1.0})
    return context


def test_a_fresh_process_without_this_project_agrees_in_logits_and_in_every_way_of_generating(
    finished: StageContext,
) -> None:
    found = finished.read_json("verification.json")
    assert found["passed"]
    assert found["project_importable"] is False
    assert found["load_warnings"] == []
    assert found["model_class"] == "StreamlineOPTForCausalLM"
    assert found["logits_max_difference"] <= found["logits_tolerance"]
    ways = {"in_memory", "cache_off", "default", "static_cache", "token_by_token", "left_padding"}
    assert set(found["generation"]) == ways


def test_the_model_in_memory_is_as_before_the_probe(finished: StageContext) -> None:
    decoder = resident_model(finished, "this test")
    stored = load_file(finished.model / SINGLE_FILE)["model.decoder.embed_tokens.weight"]
    assert torch.equal(decoder.model.get_input_embeddings().weight, stored)  # type: ignore[operator]
    assert len(decoder.layers) == LAYERS


NEW_KINDS = {"linear_residual": 1, "linear_merged": 1, "layer": 2}
WINDOWS = {"start": (0, 3), "middle": (1, 4), "end": (2, LAYERS)}


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("kind", NEW_KINDS)
@pytest.mark.parametrize("family", ["llama", "opt", "gpt_neox"])
def test_what_was_fitted_is_what_was_written_wherever_the_window_is(
    tmp_path: Path, family: str, kind: str, window: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))
    place = (1, 3) if (kind, window) == ("linear_merged", "start") else WINDOWS[window]
    dtype = "bfloat16" if window == "middle" else None
    context = unassembled(tmp_path, family, kind, place, layers=NEW_KINDS[kind], dtype=dtype)
    training_stage.train(context)
    assembly.run(context)
    probe = context.workspace / verification.PROBE
    save_file(verification.make_probe(context, shared_model(context)), probe)
    checkpoint = context.workspace / "checkpoint"
    findings = verification_script.check(checkpoint, probe, "float32", "cpu", trust=kind == "linear_residual")
    # The same checks as in a process of their own, which take seconds to start.
    assert verification.judge({**findings, "project_importable": False}, torch.float32)["passed"]
    assert findings["load_warnings"] == []
    assert len(findings["generation"]) == 6


@pytest.mark.parametrize(
    ("family", "kind", "window"),
    [("opt", "linear_residual", "end"), ("gpt_neox", "linear_merged", "middle"), ("llama", "layer", "start")],
)
def test_a_fresh_process_agrees_for_every_new_kind(tmp_path: Path, family: str, kind: str, window: str) -> None:
    context = unassembled(tmp_path, family, kind, WINDOWS[window], layers=NEW_KINDS[kind])
    training_stage.train(context)
    assembly.run(context)
    verification.run(context)
    found = context.read_json("verification.json")
    assert found["passed"]
    assert found["model_class"].startswith("Streamline") == (kind == "linear_residual")


def test_a_checkpoint_with_one_wrong_weight_fails_with_the_difference(tmp_path: Path) -> None:
    context = make_context(tmp_path, "llama", "none")
    file = context.workspace / "checkpoint" / SINGLE_FILE
    tensors = load_file(file)
    tensors["model.layers.1.mlp.down_proj.weight"][0, 0] += 3
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(EngineError, match="logits differ from the model in memory by") as caught:
        verification.run(context)
    assert caught.value.code == "verification_failed"
    assert not (context.workspace / "verification.json").exists()


def test_a_checkpoint_that_does_not_load_fails_with_the_reason(tmp_path: Path) -> None:
    context = make_context(tmp_path, "llama", "none")
    (context.workspace / "checkpoint" / "config.json").write_text("{}")
    with pytest.raises(EngineError, match="could not load") as caught:
        verification.run(context)
    assert caught.value.code == "verification_failed"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"project_importable": True}, "importable"),
        ({"loading": {"missing_keys": ["lm_head.weight"]}}, r"missing_keys: lm_head\.weight"),
        ({"logits_max_difference": 0.01}, "differ"),
        ({"logits_max_difference": float("nan")}, "differ"),
        ({"generation": {"static_cache": {"same": False, "largest_margin": 0.5}}}, "static_cache"),
    ],
)
def test_every_finding_that_is_wrong_is_named(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(EngineError, match=reason):
        verification.judge({**GOOD, **change}, torch.float32)


def test_rounding_is_no_difference() -> None:
    tie = {"left_padding": {"same": False, "largest_margin": 1e-6}}
    verdict = verification.judge({**GOOD, "logits_max_difference": 1e-5, "generation": tie}, torch.float32)
    assert verdict["passed"]


def test_evaluation_reports_dense_cut_and_pruned_with_samples(finished: StageContext) -> None:
    found = finished.read_json("evaluation.json")
    text = found["perplexity"]["words"]
    assert text["sequences"] == 6 * 41 // 16
    assert text["tokens"] == text["sequences"] * 15
    assert text["ratio"] == pytest.approx(text["pruned"] / text["dense"])
    assert {"dense", "cut", "pruned"} <= set(text["byte"])
    assert len(found["samples"]) == 2
    assert all({"prompt", "dense", "cut", "pruned"} == set(sample) for sample in found["samples"])


def test_the_benchmark_measures_both_models_at_every_batch_size_and_prompt_length(finished: StageContext) -> None:
    found = finished.read_json("benchmark.json")
    assert [(each["batch_size"], each["prompt_tokens"]) for each in found["settings"]] == [
        (1, 8), (2, 8), (1, 16), (2, 16),
    ]  # fmt: skip
    for setting in found["settings"]:
        for measured in setting["models"].values():
            for name in ("decode_tokens_per_second", "prefill_tokens_per_second", "time_to_first_token_s"):
                spread = measured[name]
                assert 0 < spread["min"] <= spread["lower_quartile"] <= spread["median"] <= spread["upper_quartile"]
            assert 0 < measured["token_latency_s"]["p50"] <= measured["token_latency_s"]["p99"]
        assert setting["speedup"]["median"] > 0
        for name, measured in setting["models"].items():
            # What is on top of the weights of models this small is the allocator's mood.
            assert measured["peak_memory_bytes"] >= found["models"][name]["parameters"] * 4
    dense, pruned = found["models"]["dense"], found["models"]["pruned"]
    assert pruned["parameters"] < dense["parameters"]
    assert pruned["flops_per_token"] < dense["flops_per_token"]
    assert pruned["checkpoint_bytes"] == (finished.workspace / "checkpoint" / SINGLE_FILE).stat().st_size


def test_percentiles_are_those_of_single_tokens() -> None:
    assert benchmark.percentiles([float(i) for i in range(101)]) == {"p50": 50.0, "p90": 90.0, "p99": 99.0}
    assert benchmark.percentiles([2.0]) == {"p50": 2.0, "p90": 2.0, "p99": 2.0}


def test_a_rival_takes_its_turns_beside_the_two(finished: StageContext) -> None:
    rival = {"path": str(finished.workspace / "checkpoint"), "name": "team/rival", "revision": "local"}
    plan = {"batch_sizes": [1], "prompt_tokens": [8], "new_tokens": 3, "repeats": 1, "rivals": [rival]}
    recipe = Recipe.from_json(finished.recipe.to_json() | {"benchmark": plan})
    request_checks.check(recipe)
    kept = (finished.workspace / "benchmark.json").read_bytes()
    benchmark.run(replace(finished, recipe=recipe))
    found = finished.read_json("benchmark.json")
    (finished.workspace / "benchmark.json").write_bytes(kept)
    assert list(found["settings"][0]["models"]) == ["dense", "pruned", "team/rival"]
    assert found["models"]["team/rival"] == found["models"]["pruned"]
    assert found["rivals"] == ["team/rival"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"backend": "vllm"}, "ffn ends in a checkpoint with code of its own"),
        ({"rivals": [{"path": "/nowhere", "name": "pruned", "revision": ""}]}, "need different names"),
        ({"rivals": [{"path": "/nowhere", "name": "x", "revision": ""}]}, "/nowhere"),
        ({"prompt_tokens": []}, "must each name at least one"),
    ],
)
def test_a_benchmark_that_cannot_be_run_is_refused(finished: StageContext, changes: dict[str, Any], said: str) -> None:
    data = finished.recipe.to_json()
    recipe = Recipe.from_json(data | {"benchmark": data["benchmark"] | changes})
    with pytest.raises(EngineError, match=said):
        request_checks.check(recipe)


def test_a_backend_that_is_not_installed_is_refused(finished: StageContext) -> None:
    data = finished.recipe.to_json()
    changes = {"benchmark": data["benchmark"] | {"backend": "vllm"}, "replacement": data["replacement"]}
    changes["replacement"] |= {"kind": "layer"}
    with pytest.raises(EngineError, match="vllm, which is not installed"):
        request_checks.check(Recipe.from_json(data | changes))


def test_the_report_has_the_contracts_names(finished: StageContext) -> None:
    report = finished.read_json("report.json")
    metrics = report["metrics"]
    assert set(metrics) >= {
        "parameters", "sparsity", "perplexity", "decode_tokens_per_second", "speedup", "time_to_first_token_s",
        "flops_per_token", "peak_memory_bytes", "checkpoint_bytes", "stage_seconds",
    }  # fmt: skip
    assert set(metrics["parameters"]) == set(metrics["decode_tokens_per_second"]) == {"dense", "pruned"}
    assert metrics["sparsity"] == pytest.approx(1 - metrics["parameters"]["pruned"] / metrics["parameters"]["dense"])
    assert report["removed_layers"] == [1, 2]
    assert report["environment"]["versions"]["torch"]
    assert report["recipe"]["target"]["window"] == [1, 3]


def test_a_report_of_an_unfinished_run_has_what_there_is(tmp_path: Path) -> None:
    context = make_context(tmp_path, "llama", "none")
    report = write_report(context, {"assemble": 0.1})
    assert report["evaluation"] is None
    assert report["metrics"]["stage_seconds"] == {"assemble": 0.1}
