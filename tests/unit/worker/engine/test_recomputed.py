"""Hidden states that are computed anew for each batch: the same pairs, the same training, and no room taken."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.unit.worker.engine.recipes import make_recipe, recipe_json, write_text
from worker.engine import pipeline
from worker.engine.activation_store import ActivationStore
from worker.engine.context import StageContext
from worker.engine.decoder import Decoder
from worker.engine.errors import EngineError
from worker.engine.events import Collected, Emitter, Event
from worker.engine.training.recomputed import RecomputedStates

TO_TRAIN = tuple(s for s in pipeline.STAGES if s.name in ("fetch", "score", "select", "train"))
HELD_OUT_BYTES = 2 * 16 * 16 * 4  # h_start and h_end of the one sequence held out: 16 tokens, 16 wide, float32


def test_pairs_computed_anew_are_those_that_are_stored(decoder: Decoder, ids: Tensor, tmp_path: Path) -> None:
    (tmp_path / "held").mkdir()
    stored = ActivationStore.capture(decoder, ids, 1, 4, tmp_path, batch_size=2)
    held = ActivationStore.capture(decoder, ids[[1]], 1, 4, tmp_path / "held", batch_size=2)
    anew = RecomputedStates(decoder, ids, (1, 4), held, [1])
    assert (len(anew), anew.length, anew.stored_dtype) == (len(stored), stored.length, stored.stored_dtype)
    for indices in ([2, 0], [1], [0, 1, 2], []):
        for made, expected in zip(anew.batch(indices), stored.batch(indices), strict=True):
            torch.testing.assert_close(made, expected)
            assert not made.is_inference(), "a block can be trained on them"


def test_a_state_that_is_not_finite_names_the_layer(llama: Decoder, ids: Tensor, tmp_path: Path) -> None:
    held = ActivationStore.capture(llama, ids[[1]], 0, 3, tmp_path, batch_size=2)
    with torch.no_grad():
        llama.layers[1].get_parameter("mlp.down_proj.weight").fill_(float("inf"))
    with pytest.raises(EngineError, match="before layer 3"):
        RecomputedStates(llama, ids, (0, 3), held, [1]).batch([0])


class Watches(Collected):
    """Notes how many bytes of hidden states lie on disk when the first step is told."""

    def __init__(self, workspace: Path) -> None:
        super().__init__()
        self.workspace, self.on_disk = workspace, -1

    def write(self, event: Event) -> None:
        super().write(event)
        if event["event"] == "metric" and self.on_disk < 0:
            self.on_disk = sum(file.stat().st_size for file in (self.workspace / "tmp").rglob("*.bin"))


def trained(
    model: Path, directory: Path, room: int | None, processes: int = 1, execution: str = "auto", **block: Any
) -> tuple[dict[str, Any], Watches]:
    text = write_text(directory / "words.jsonl")
    replacement = recipe_json(model, text)["replacement"] | block
    recipe = make_recipe(model, text, replacement=replacement, execution=execution)
    workspace = directory / f"{room}-{processes}"
    sink = Watches(workspace)
    context = StageContext(
        recipe, workspace, directory / "cache", Emitter(sink), "cpu", processes=processes, activation_bytes=room
    )
    pipeline.run_pipeline(context, TO_TRAIN)
    return json.loads((workspace / "training.json").read_text()), sink


def losses(training: dict[str, Any]) -> list[float]:
    return [point["loss"] for phase in training["phases"] for kind in ("steps", "held_out") for point in phase[kind]]


@pytest.mark.parametrize("block", [{"loss": "mse+kd"}, {"init": "closed_form", "kind": "swiglu"}])
def test_without_room_training_goes_the_same_way_and_says_why_it_takes_longer(
    tiny_directory: Callable[[str], Path], tmp_path: Path, block: dict[str, Any]
) -> None:
    model = tiny_directory("llama")
    stored, _ = trained(model, tmp_path, None, **block)
    anew, sink = trained(model, tmp_path, HELD_OUT_BYTES, **block)
    assert (stored["activations"], anew["activations"]) == ("stored", "recomputed")
    assert losses(anew) == pytest.approx(losses(stored), rel=1e-4)
    assert sink.on_disk == HELD_OUT_BYTES
    told = [event["message"] for event in sink.events if event["event"] == "log"]
    assert any("there is room for 2,048: they are computed anew in each of 3 passes" in line for line in told)


def test_one_pass_over_the_data_stores_what_is_held_out_alone(
    tiny_directory: Callable[[str], Path], tmp_path: Path
) -> None:
    training, sink = trained(tiny_directory("llama"), tmp_path, None, epochs=1)
    assert training["activations"] == "recomputed"
    assert sink.on_disk == HELD_OUT_BYTES


@pytest.mark.parametrize(("room", "activations"), [(None, "stored"), (0, "recomputed")])
def test_several_processes_map_what_is_stored_and_compute_their_shares_of_what_is_not(
    tiny_directory: Callable[[str], Path], tmp_path: Path, room: int | None, activations: str
) -> None:
    model = tiny_directory("llama")
    alone, _ = trained(model, tmp_path, room)
    together, _ = trained(model, tmp_path, room, processes=2)
    assert (together["activations"], together["processes"]) == (activations, 2)
    assert losses(together) == pytest.approx(losses(alone), rel=1e-4)


def test_processes_that_share_a_processor_store_what_they_train_on_once(
    tiny_directory: Callable[[str], Path], tmp_path: Path
) -> None:
    together, _ = trained(tiny_directory("llama"), tmp_path, None, processes=2, epochs=1)
    assert together["activations"] == "stored"


def test_a_streamed_model_without_room_is_refused_with_the_sizes(
    tiny_directory: Callable[[str], Path], tmp_path: Path
) -> None:
    with pytest.raises(EngineError, match="bytes are needed in .* and 2048 may be taken by hidden states") as caught:
        trained(tiny_directory("llama"), tmp_path, HELD_OUT_BYTES, execution="streamed")
    assert caught.value.code == "disk_full"
