"""What healing promises: a better model of the same form, or the one that was there, and the same bytes each time."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from app.core import defaults
from app.core.safetensors_file import SINGLE_FILE, parameter_count, read_checkpoint
from tests.unit.worker.engine.fresh_process import FreshProcess
from tests.unit.worker.engine.recipes import make_recipe, recipe_json, write_text
from worker.engine import pipeline, verification
from worker.engine.context import StageContext
from worker.engine.decoder import Decoder
from worker.engine.errors import EngineError
from worker.engine.events import Collected, Emitter, Event
from worker.engine.execution import shared_model
from worker.engine.healing.adapters import Place, attached
from worker.engine.healing.updates import healed
from worker.engine.ledger import Ledger
from worker.engine.recipe import Healing, Recipe

STEPS = ("fetch", "score", "select", "train", "heal", "assemble")
STAGES = tuple(stage for stage in pipeline.STAGES if stage.name in STEPS)
LORA: dict[str, Any] = {
    "kind": "lora", "rank": 2, "alpha": 4.0, "epochs": 2, "learning_rate": 1e-2, "tokens": 256, "batch_size": 4,
}  # fmt: skip


@pytest.fixture(scope="module")
def fresh() -> Iterator[FreshProcess]:
    with FreshProcess() as process:
        yield process


def recipe_of(source: Path, text: Path, kind: str = "layer", **changes: Any) -> Recipe:
    replacement = recipe_json(source, text)["replacement"] | {"kind": kind, "init": defaults.init(kind)}  # type: ignore[arg-type]
    changes = {"target": {"window": [1, 3]}, "healing": LORA, **changes}
    return make_recipe(source, text, replacement=replacement, **changes)


def run(recipe: Recipe, workspace: Path, sink: Any = None, **options: Any) -> StageContext:
    emit = Emitter(sink or Collected())
    context = StageContext(recipe, workspace, workspace.with_name("cache"), emit, "cpu", **options)
    pipeline.run_pipeline(context, STAGES)
    return context


def hashes(workspace: Path) -> Mapping[str, str]:
    entry = Ledger(workspace).entry("assemble")
    assert entry is not None
    return entry.hashes


# Maps stored transposed, tied embeddings, joined maps, experts, and each kind of replacement in each form.
@pytest.mark.parametrize(
    ("family", "kind", "output"),
    [
        ("llama", "layer", {"dtype": None, "format": "auto"}),
        ("gpt2", "ffn", {"dtype": None, "format": "native"}),
        ("gpt2", "none", {"dtype": "bfloat16", "format": "auto"}),
        ("opt", "swiglu", {"dtype": None, "format": "auto"}),
        ("opt", "linear_merged", {"dtype": "bfloat16", "format": "auto"}),
        ("gpt_neox", "linear_residual", {"dtype": None, "format": "auto"}),
        ("phi3", "layer", {"dtype": "float16", "format": "auto"}),
        ("falcon", "linear_merged", {"dtype": None, "format": "auto"}),
        ("mixtral", "layer", {"dtype": "bfloat16", "format": "auto"}),
    ],
)
def test_a_healed_checkpoint_is_the_model_in_memory_in_its_stock_form(
    tiny_directory: Callable[[str], Path], fresh: FreshProcess, tmp_path: Path,
    family: str, kind: str, output: dict[str, Any],
) -> None:  # fmt: skip
    recipe = recipe_of(tiny_directory(family), write_text(tmp_path / "t.jsonl"), kind, output=output)
    context = run(recipe, tmp_path / "run")
    report = context.read_json("healing.json")
    assert report["kept"] == "trained"
    assert report["loss"]["after"] < report["loss"]["before"]
    save_file(verification.make_probe(context, shared_model(context)), tmp_path / "probe.safetensors")
    custom = output["format"] == "auto" and kind in ("swiglu", "linear_residual")
    found = fresh.findings(tmp_path / "run" / "checkpoint", tmp_path / "probe.safetensors", trust=custom)
    verification.judge(found, torch.float32)
    assert found["load_warnings"] == []
    written = tmp_path / "run" / "checkpoint"
    planned = context.read_json("selection.json")["parameters"]["pruned"]
    assert parameter_count(read_checkpoint(written)) == planned
    before = run(replace(recipe, healing=None), tmp_path / "unhealed").workspace / "checkpoint"
    healed_tensors, tensors = (load_file(path / SINGLE_FILE) for path in (written, before))
    assert healed_tensors.keys() == tensors.keys()
    changed = [name for name in tensors if not torch.equal(tensors[name], healed_tensors[name])]
    assert len(changed) == report["maps"]
    assert all(tensors[name].ndim == 2 for name in changed)


def test_the_update_is_what_the_library_would_merge(
    llama: Decoder, tiny_directory: Callable[[str], Path], ids: torch.Tensor
) -> None:
    def logits(tokens: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = llama.model(input_ids=tokens.long(), use_cache=False).logits
        return found

    before = logits(ids)
    path = llama.layers_path

    def place(index: int, layer: nn.Module) -> Place:
        return Place(layer, lambda name, _: f"{path}.{index}.{name}")

    with attached(
        [place(i, layer) for i, layer in enumerate(llama.layers)], Healing(**LORA), logits, seed=3
    ) as adapters:
        assert torch.equal(adapters(ids), before), "adapters start as nothing"
        with torch.no_grad():
            for parameter in adapters.parameters():
                parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)) * 0.2)
        adapted, updates = adapters(ids).detach(), adapters.updates()
    assert torch.equal(logits(ids), before), "the model is what it was"
    with healed(llama, updates, path, torch.float32, read_checkpoint(tiny_directory("llama"))):
        assert torch.allclose(logits(ids), adapted, atol=1e-4)
    assert not torch.allclose(adapted, before, atol=1e-2)
    assert torch.equal(logits(ids), before)


def test_adapters_are_trained_in_float32_beside_weights_in_half_precision(llama: Decoder, ids: torch.Tensor) -> None:
    llama.model.to(torch.bfloat16)

    def logits(tokens: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = llama.model(input_ids=tokens.long(), use_cache=False).logits
        return found

    places = [Place(layer, lambda name, _: name) for layer in llama.layers]
    with attached(places[:1], Healing(**LORA), logits, seed=3) as adapters:
        adapters(ids).float().square().mean().backward()
        trained = [parameter for parameter in adapters.parameters() if parameter.requires_grad]
        assert trained
        assert {parameter.dtype for parameter in trained} == {torch.float32}
        assert {parameter.grad.dtype for parameter in trained if parameter.grad is not None} == {torch.float32}


@pytest.fixture(scope="module")
def finished(
    tiny_directory: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Recipe, StageContext, list[Event]]:
    directory, sink = tmp_path_factory.mktemp("healed"), Collected()
    recipe = recipe_of(tiny_directory("llama"), write_text(directory / "t.jsonl"))
    return recipe, run(recipe, directory / "run", sink), sink.events


def test_healing_is_told_under_the_train_stage_with_its_loss(
    finished: tuple[Recipe, StageContext, list[Event]],
) -> None:
    _, context, events = finished
    started = [event["stage"] for event in events if event["event"] == "stage_started"]
    assert started == ["fetch", "score", "select", "train", "train", "assemble"]
    metrics = [event for event in events if event["event"] == "metric" and event["stage"] == "train"]
    healing = [metric.keys() for metric in metrics if metric.get("phase") == "healing"]
    assert any({"loss", "step", "learning_rate"} <= values for values in healing)
    assert any({"held_out_loss", "step"} <= values for values in healing)
    report = context.read_json("report.json")
    assert report["healing"]["loss"]["after"] < report["healing"]["loss"]["before"]
    assert report["stage_seconds"].keys() == {"fetch", "score", "select", "train", "assemble"}


class Killed(BaseException):
    """What stops a run in the middle."""


class HealingSteps(Collected):
    """The steps of healing; ends the run at one of them."""

    def __init__(self, kill_at: int | None = None) -> None:
        super().__init__()
        self._kill_at = kill_at

    @property
    def steps(self) -> list[int]:
        starts = [i for i, e in enumerate(self.events) if e["event"] == "stage_started" and e["stage"] == "train"]
        after = self.events[starts[1] :] if len(starts) > 1 else []
        return [event["step"] for event in after if event["event"] == "metric"]

    def write(self, event: Event) -> None:
        super().write(event)
        if event["event"] == "metric" and self.steps[-1:] == [self._kill_at]:
            raise Killed


@pytest.mark.parametrize("last", [False, True])
def test_a_run_killed_while_it_heals_goes_on_to_the_same_checkpoint(
    finished: tuple[Recipe, StageContext, list[Event]], tmp_path: Path, last: bool
) -> None:
    recipe, context, _ = finished
    steps = [step["step"] for step in context.read_json("healing.json")["phases"][0]["steps"]]
    killed_at = steps[-1] if last else steps[len(steps) // 2]
    with pytest.raises(Killed):
        run(recipe, tmp_path / "run", HealingSteps(killed_at), save_every_seconds=0.0)
    resumed = HealingSteps()
    run(recipe, tmp_path / "run", resumed, save_every_seconds=0.0)
    assert resumed.steps[0] == killed_at, "what was saved is not done again"
    assert hashes(tmp_path / "run") == hashes(context.workspace)
    assert not (tmp_path / "run" / "healing").exists()


def test_a_change_of_healing_runs_what_depends_on_it_and_without_it_all_is_as_if_it_never_was(
    finished: tuple[Recipe, StageContext, list[Event]], tmp_path: Path
) -> None:
    recipe, _, _ = finished
    plain = replace(recipe, healing=None)
    unhealed = hashes(run(plain, tmp_path / "run").workspace)

    def reran(changed: Recipe) -> list[str]:
        sink = Collected()
        run(changed, tmp_path / "run", sink)
        return [e["stage"] for e in sink.events if e["event"] == "stage_finished" and not e["skipped"]]

    assert reran(recipe) == ["train", "assemble"], "the replacement is not trained again"
    assert reran(replace(recipe, healing=Healing(**LORA | {"rank": 3}))) == ["train", "assemble"]
    assert reran(plain) == ["assemble"]
    assert hashes(tmp_path / "run") == unhealed
    assert not (tmp_path / "run" / "healing.json").exists()


@pytest.mark.parametrize("rate", [1e-30, 1e30])  # changes nothing that float32 can tell; blows up
def test_the_untouched_start_is_kept_byte_for_byte_where_healing_does_not_beat_it(
    finished: tuple[Recipe, StageContext, list[Event]], tmp_path: Path, rate: float
) -> None:
    recipe, _, _ = finished
    plain = run(replace(recipe, healing=None), tmp_path / "run")
    unhealed = dict(hashes(plain.workspace))
    context = run(replace(recipe, healing=Healing(**LORA | {"learning_rate": rate})), tmp_path / "run")
    report = json.loads((tmp_path / "run" / "healing.json").read_text())
    assert report["kept"] == "start"
    assert report["loss"]["after"] == report["loss"]["before"]
    assert hashes(context.workspace) == unhealed


def test_a_streamed_run_is_refused_before_anything_is_scored(
    finished: tuple[Recipe, StageContext, list[Event]], tmp_path: Path
) -> None:
    recipe, _, _ = finished
    with pytest.raises(EngineError, match="healing needs the whole model in memory") as caught:
        run(replace(recipe, execution="streamed"), tmp_path / "run")
    assert caught.value.code == "needs_resident"
    assert Ledger(tmp_path / "run").entry("score") is None
