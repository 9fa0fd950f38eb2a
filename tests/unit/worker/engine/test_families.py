"""Every family: scored, cut, each replacement, written, loaded in a fresh process by the stock library, the same."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from app.core import defaults
from app.core.architectures import field_name, kind_refusal, native_refusal
from app.core.discovery import discover
from app.core.family_table import SUPPORTED
from app.core.layer_fields import kept_layers
from app.core.safetensors_file import SINGLE_FILE, parameter_count, read_checkpoint
from app.core.selection import ParameterCounts, Target, window_size
from tests.unit.worker.engine.fresh_process import FreshProcess
from tests.unit.worker.engine.recipes import make_recipe, recipe_json, write_text
from tests.unit.worker.engine.tiny_models import LAYERS, save_model
from worker.engine import pipeline, verification
from worker.engine.assembly import Swap, assemble, assemble_all
from worker.engine.context import StageContext
from worker.engine.events import Collected, Emitter
from worker.engine.execution import shared_model
from worker.engine.recipe import Dtype, Format, Kind

STAGES = tuple(stage for stage in pipeline.STAGES if stage.name in ("fetch", "score", "select", "train", "assemble"))
# At the start, in the middle and at the end of five layers, over both kinds of layers where there are two.
CASES: tuple[tuple[Kind, Format, tuple[int, int]], ...] = (
    ("none", "auto", (3, 5)),
    ("layer", "auto", (1, 4)),
    ("swiglu", "auto", (0, 2)),
    ("swiglu", "native", (2, 4)),
    ("ffn", "native", (1, 3)),
    ("linear_merged", "auto", (1, 3)),
    ("linear_residual", "auto", (2, 5)),
)
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    **{family: (family, {}) for family in SUPPORTED},
    "falcon-new": ("falcon", {"new_decoder_architecture": True, "num_kv_heads": 2, "bias": True}),
    "falcon-alibi": ("falcon", {"parallel_attn": False, "multi_query": False, "alibi": True}),
}


@pytest.fixture(scope="module")
def fresh() -> Iterator[FreshProcess]:
    with FreshProcess() as process:
        yield process


@pytest.fixture(autouse=True)
def small_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verification, "NEW_TOKENS", 6)
    monkeypatch.setattr(verification, "SEQUENCE_TOKENS", 24)


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("sources")
    return {name: save_model(root / name, family, **changes) for name, (family, changes) in VARIANTS.items()}


@settings(max_examples=50, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_window_of_any_family_keeps_the_rest_bit_for_bit_and_weighs_what_the_plan_says(
    sources: dict[str, Path], tmp_path: Path, data: st.DataObject
) -> None:
    source = sources[data.draw(st.sampled_from(sorted(sources)))]
    start = data.draw(st.integers(0, LAYERS - 1))
    end = data.draw(st.integers(start + 1, min(LAYERS, start + LAYERS - 2)))
    kind: Kind = data.draw(st.sampled_from(("none", "layer")))
    config, before = config_of(source), load_file(source / SINGLE_FILE)
    layers = discover(config, {name: tuple(tensor.shape) for name, tensor in before.items()}).layers
    replacement = {
        name.removeprefix(f"{layers}.{start}."): torch.randn(tensor.shape)
        for name, tensor in before.items()
        if kind == "layer" and name.startswith(f"{layers}.{start}.")
    }
    written = assemble(source, tmp_path / "out", start=start, end=end, kind=kind, replacement=replacement)
    after = load_file(tmp_path / "out" / SINGLE_FILE)
    kept = kept_layers(start, end, LAYERS, inserted=int(kind == "layer"))
    expected = {name: tensor for name, tensor in before.items() if not name.startswith(f"{layers}.")}
    for place, layer in enumerate(kept):
        put_in = kind == "layer" and layer == start
        for name, tensor in before.items():
            if name.startswith(f"{layers}.{layer}."):
                rest = name.removeprefix(f"{layers}.{layer}.")
                expected[f"{layers}.{place}.{rest}"] = replacement[rest] if put_in else tensor
    assert after.keys() == expected.keys()
    assert all(torch.equal(after[name], expected[name]) for name in expected)
    counts = ParameterCounts.from_tensors(config, {name: tensor.numel() for name, tensor in before.items()})
    plan = window_size(config, Target(window=(start, end)), kind, "auto", counts)
    assert written.parameters == plan.pruned_parameters == parameter_count(read_checkpoint(tmp_path / "out"))


@settings(max_examples=50, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_two_windows_of_any_family_are_swapped_at_once_as_one_after_the_other(
    sources: dict[str, Path], tmp_path: Path, data: st.DataObject
) -> None:
    source = sources[data.draw(st.sampled_from(sorted(sources)))]
    edges = data.draw(st.lists(st.integers(0, LAYERS), min_size=4, max_size=4, unique=True).map(sorted))
    windows = [(edges[0], edges[1]), (edges[2], edges[3])]
    kind: Kind = data.draw(st.sampled_from(("none", "layer")))
    config, before = config_of(source), load_file(source / SINGLE_FILE)
    sizes = {name: tensor.numel() for name, tensor in before.items()}
    layers = discover(config, {name: tuple(tensor.shape) for name, tensor in before.items()}).layers
    swaps = [
        Swap(start, end, {
            name.removeprefix(f"{layers}.{start}."): torch.randn(tensor.shape)
            for name, tensor in before.items()
            if kind == "layer" and name.startswith(f"{layers}.{start}.")
        })
        for start, end in windows
    ]  # fmt: skip
    written = assemble_all(source, tmp_path / "at-once", swaps, kind=kind)
    last, first = swaps[1], swaps[0]
    assemble(source, tmp_path / "one", start=last.start, end=last.end, kind=kind, replacement=last.replacement)
    assemble(
        tmp_path / "one", tmp_path / "two", start=first.start, end=first.end, kind=kind, replacement=first.replacement
    )
    at_once, in_turn = (load_file(tmp_path / name / SINGLE_FILE) for name in ("at-once", "two"))
    assert at_once.keys() == in_turn.keys()
    assert all(torch.equal(at_once[name], in_turn[name]) for name in at_once)
    assert config_of(tmp_path / "at-once") == config_of(tmp_path / "two")
    counts = ParameterCounts.from_tensors(config, sizes)
    plans = [window_size(config, Target(window=window), kind, "auto", counts) for window in windows]
    assert written.parameters == counts.dense - sum(plan.dense_parameters - plan.pruned_parameters for plan in plans)


def config_of(path: Path) -> Any:
    return json.loads((path / "config.json").read_text())


def run(
    source: Path, out: Path, kind: Kind, form: Format, window: tuple[int, int], memo: dict[str, Any],
    dtype: Dtype | None = None,
) -> None:  # fmt: skip
    """The stages up to the checkpoint, and the probe that the verify stage would leave."""
    text = write_text(out.with_suffix(".jsonl"), rows=96)
    recipe = make_recipe(
        source, text, target={"window": list(window)}, output={"dtype": dtype, "format": form},
        replacement=recipe_json(source, text)["replacement"]
        | {"kind": kind, "init": defaults.init(kind), "epochs": 1, "tokens": 64},
    )  # fmt: skip
    context = StageContext(recipe, out, out.with_name("cache"), Emitter(Collected()), "cpu", memo=memo)
    pipeline.run_pipeline(context, STAGES)
    save_file(verification.make_probe(context, shared_model(context)), out / "probe.safetensors")


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_family_is_scored_cut_replaced_written_and_loaded_the_same(
    variant: str, fresh: FreshProcess, tmp_path: Path
) -> None:
    family, changes = VARIANTS[variant]
    source = save_model(tmp_path / "source", family, **changes)
    config = config_of(source)
    memo: dict[str, Any] = {}
    for kind, wanted, window in CASES:
        if kind_refusal(config, kind):
            continue
        form: Format = "auto" if native_refusal(config, kind) else wanted
        out = tmp_path / f"{kind}-{wanted}"
        run(source, out, kind, form, window, memo)
        custom = form == "auto" and kind in ("swiglu", "ffn", "linear_residual")
        found = fresh.findings(out / "checkpoint", out / "probe.safetensors", trust=custom)
        verification.judge(found, torch.float32)
        assert found["load_warnings"] == []
        planned = json.loads((out / "selection.json").read_text())["parameters"]["pruned"]
        assert parameter_count(read_checkpoint(out / "checkpoint")) == planned
        written = config_of(out / "checkpoint")
        put_in = 0 if kind in ("none", "linear_merged") or custom else 1
        assert written[field_name(written, "num_hidden_layers")] == LAYERS - (window[1] - window[0]) + put_in


def test_the_stored_buffers_of_a_router_follow_the_output_dtype_too(fresh: FreshProcess, tmp_path: Path) -> None:
    source = save_model(tmp_path / "source", "deepseek_v3")
    tensors = load_file(source / SINGLE_FILE)
    biases = [name for name in tensors if name.endswith("e_score_correction_bias")]
    assert biases
    # Widely spread, so that rounding tells.
    tensors |= {name: torch.linspace(0.1, 0.4, tensors[name].numel()) for name in biases}
    save_file(tensors, source / SINGLE_FILE, metadata={"format": "pt"})
    run(source, tmp_path / "out", "layer", "auto", (1, 3), {}, dtype="bfloat16")
    found = fresh.findings(tmp_path / "out" / "checkpoint", tmp_path / "out" / "probe.safetensors", trust=False)
    verification.judge(found, torch.float32)
