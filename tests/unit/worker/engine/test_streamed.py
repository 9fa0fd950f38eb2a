"""What a streamed model promises: the numbers of a resident one, bit for bit, with two layers in memory."""

from __future__ import annotations

import gc
import itertools
import os
import shutil
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from app.core.safetensors_file import SINGLE_FILE
from tests.unit.worker.engine.tiny_models import CONFIGS, LAYERS, save_model
from worker.engine import state_buffer, weights
from worker.engine.activation_store import ActivationStore
from worker.engine.benchmark import flops_per_token
from worker.engine.decoder import Decoder, load_decoder
from worker.engine.errors import EngineError
from worker.engine.hidden_states import LayeredModel
from worker.engine.replacements import build, linear_merged, linear_residual
from worker.engine.replacements.starts import Start
from worker.engine.scoring import METRICS
from worker.engine.scoring.sampling import score_windows
from worker.engine.streamed import StreamedDecoder, load_streamed

Pair = tuple[Decoder, StreamedDecoder]
States = dict[tuple[int, int], Tensor]

WINDOWS = ((0, 2), (1, 3), (3, LAYERS))


def both(path: Path, scratch: Path, dtype: torch.dtype | None = None) -> Pair:
    return load_decoder(path, "cpu", dtype), load_streamed(path, "cpu", scratch, dtype)


@pytest.fixture(params=CONFIGS)
def pair(request: pytest.FixtureRequest, tiny_directory: Callable[[str], Path], tmp_path: Path) -> Pair:
    """Each family in turn, resident and streamed."""
    return both(tiny_directory(request.param), tmp_path / "scratch")


# Fused and renamed weights, experts, layers that return tuples, layers of several kinds.
@pytest.fixture(params=[*CONFIGS, "gpt2", "falcon", "gptj", "mixtral", "gemma2", "phi3", "deepseek_v3", "gpt_oss"])
def any_pair(request: pytest.FixtureRequest, tiny_directory: Callable[[str], Path], tmp_path: Path) -> Pair:
    """Each family in turn, and others that are built in other ways."""
    return both(tiny_directory(request.param), tmp_path / "scratch")


@pytest.fixture
def on_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """No hidden state stays in memory."""
    monkeypatch.setattr(state_buffer, "MEMORY_BYTES", 0)


def visited(
    model: LayeredModel, ids: Tensor, batch: int = 2, *, at: set[int] | None = None, together: bool = False
) -> States:
    found: States = {}
    model.visit_windows(
        ids, batch, lambda first, row, h: found.update({(first, row): h.clone()}), at=at, together=together
    )
    return found


def last(model: LayeredModel, ids: Tensor, *cut: tuple[int, int]) -> dict[tuple[str, int], Tensor]:
    found: dict[tuple[str, int], Tensor] = {}
    model.last_states(ids, 2, lambda name, first, h: found.update({(name, first): h.clone()}), cut=cut or None)
    return found


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def assert_equal(mine: dict[tuple[object, int], Tensor], theirs: dict[tuple[object, int], Tensor]) -> None:
    assert mine.keys() == theirs.keys()
    for key, states in theirs.items():
        assert torch.equal(mine[key], states), key


def test_every_state_is_that_of_the_resident_model_bit_for_bit(any_pair: Pair, ids: Tensor) -> None:
    resident, streamed = any_pair
    for at, together in itertools.product((None, {1, 4}, {0}), (False, True)):
        expected = visited(resident, ids, at=at)
        assert_equal(visited(streamed, ids, at=at, together=together), expected)  # type: ignore[arg-type]


@pytest.mark.usefixtures("on_disk")
def test_states_on_disk_are_the_same_and_leave_nothing_behind(pair: Pair, ids: Tensor, tmp_path: Path) -> None:
    resident, streamed = pair
    assert_equal(visited(streamed, ids, together=True), visited(resident, ids))  # type: ignore[arg-type]
    assert list((tmp_path / "scratch").iterdir()) == []


def test_batches_are_finished_one_by_one_where_that_is_asked_for(pair: Pair, ids: Tensor) -> None:
    assert list(visited(pair[1], ids, together=True)) == list(visited(pair[0], ids))


def test_a_small_disk_is_used_in_groups_of_sequences(
    pair: Pair, ids: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resident, streamed = pair
    usage = namedtuple("usage", "total used free")
    one = (LAYERS + 2) * 12 * 16 * 4
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10 * one, 8 * one, 2 * one))
    assert_equal(visited(streamed, ids, 1, together=True), visited(resident, ids, 1))  # type: ignore[arg-type]
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10 * one, 8 * one, 12 * 16 * 4))
    assert_equal(last(streamed, ids, (1, 3)), last(resident, ids, (1, 3)))  # type: ignore[arg-type]


def test_dense_and_cut_end_in_the_same_states(pair: Pair, ids: Tensor) -> None:
    for cut in ([], *([window] for window in WINDOWS), [(0, 1), (3, LAYERS)], [(1, 2), (3, 4)]):
        assert_equal(last(pair[1], ids, *cut), last(pair[0], ids, *cut))  # type: ignore[arg-type]


def test_scores_are_the_same_numbers(pair: Pair, ids: Tensor) -> None:
    resident, streamed = (score_windows(model, ids, 2) for model in pair)
    assert streamed.scores() == resident.scores()
    assert all(map(torch.equal, streamed.sequences, resident.sequences))


def test_every_metric_of_one_pass_scores_the_same(pair: Pair, ids: Tensor) -> None:
    for metric in ("angular", "euclidean", "dot"):
        resident, streamed = (score_windows(model, ids, 2, metric=METRICS[metric]) for model in pair)
        assert streamed.scores() == resident.scores()


def test_maps_in_closed_form_are_the_same_numbers(pair: Pair, ids: Tensor) -> None:
    for kind in (linear_residual, linear_merged):
        resident, streamed = (kind.fit(model, ids, 1, 3, 2) for model in pair)
        assert same(streamed[0], resident[0]), kind
        assert streamed[1].held_out == resident[1].held_out


def test_several_layers_in_place_of_a_window_have_the_same_logits(pair: Pair, ids: Tensor) -> None:
    found = []
    for model in pair:
        block = build("layer", Start(model, 1, 4, "last", 3, lambda _: 0.0, 2))
        with model.with_layers(1, 4, block):
            found.append(model.logits(ids))
    assert torch.equal(found[0], found[1])


def test_several_windows_in_memory_have_the_same_logits(pair: Pair, ids: Tensor) -> None:
    for kind in ("none", "layer", "swiglu"):
        found = []
        for model in pair:
            behind, in_front = (build(kind, Start(model, *w, "last", 3, lambda _: 0.0)) for w in ((3, LAYERS), (0, 2)))
            with model.with_layers(3, LAYERS, behind), model.with_layers(0, 2, in_front):
                found.append(model.logits(ids))
        assert torch.equal(found[0], found[1]), kind


def test_captured_pairs_are_the_same_bytes(pair: Pair, ids: Tensor, tmp_path: Path) -> None:
    files = []
    for model in pair:
        directory = tmp_path / model.execution
        directory.mkdir()
        ActivationStore.capture(model, ids, 1, 4, directory, batch_size=2)
        files.append([path.read_bytes() for path in sorted(directory.iterdir())])
    assert files[0] == files[1]


def test_a_block_starts_with_the_same_weights(pair: Pair) -> None:
    def error(block: nn.Module) -> float:
        return sum(float(parameter.double().sum()) for parameter in block.parameters())

    kinds, inits = ("layer", "swiglu", "ffn"), ("first", "last", "mean", "random", "best")
    for kind, init in itertools.product(kinds, inits):
        resident, streamed = (build(kind, Start(model, 1, 4, init, 3, error)) for model in pair)  # type: ignore[arg-type]
        assert resident is not None
        assert streamed is not None
        assert same(streamed.state_dict(), resident.state_dict()), (kind, init)


def test_the_pruned_model_in_memory_has_the_same_logits(pair: Pair, ids: Tensor) -> None:
    for window, kind in itertools.product(WINDOWS, ("none", "layer", "swiglu")):
        found = []
        for model in pair:
            block = build(kind, Start(model, *window, "random", 3, lambda _: 0.0))  # type: ignore[arg-type]
            with model.rounded(torch.bfloat16), model.with_layers(*window, block):
                found.append(model.logits(ids))
        assert torch.equal(found[0], found[1]), (window, kind)
    dense = [model.logits(ids) for model in pair]
    assert torch.equal(dense[0], dense[1])
    assert not torch.equal(dense[0], found[0])


def test_a_forward_pass_takes_the_same_number_of_operations(pair: Pair, ids: Tensor) -> None:
    assert flops_per_token(pair[1], ids[:1]) == flops_per_token(pair[0], ids[:1])


def test_the_head_predicts_the_same(pair: Pair, ids: Tensor) -> None:
    hidden = last(pair[0], ids)["dense", 0]
    with pair[0].head() as resident, pair[1].head() as streamed, torch.no_grad():
        assert torch.equal(streamed(hidden), resident(hidden))


def test_layer_arguments_let_a_streamed_layer_be_trained_by_itself(pair: Pair, ids: Tensor) -> None:
    resident, streamed = pair
    states = visited(resident, ids, 3)
    layer = streamed.layer(2).requires_grad_(True)
    output = layer(states[0, 2].clone(), **streamed.layer_arguments(2, 3, 12))
    torch.testing.assert_close(output, states[0, 3])
    output.sum().backward()
    assert all(parameter.grad is not None for parameter in layer.parameters())


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("stored", [torch.bfloat16, torch.float16, torch.float32])
def test_every_way_of_storing_gives_the_same_logits(
    tmp_path: Path, ids: Tensor, tied: bool, stored: torch.dtype
) -> None:
    shard_bytes = 4_000 if tied else "1GB"
    path = save_model(
        tmp_path / "model", "llama", tie_word_embeddings=tied, shard_bytes=shard_bytes, dtype=stored
    )  # fmt: skip
    for computed in (torch.float32, torch.bfloat16):
        resident, streamed = both(path, tmp_path / "scratch", computed)
        assert torch.equal(streamed.logits(ids), resident.logits(ids))


@pytest.mark.parametrize("family", ["llama", "opt", "gpt_neox"])
def test_names_without_the_base_module_are_understood(tmp_path: Path, ids: Tensor, family: str) -> None:
    path = save_model(tmp_path / "model", family, tie_word_embeddings=True)
    prefix = f"{load_decoder(path, 'cpu').model.base_model_prefix}."
    tensors = load_file(path / SINGLE_FILE)
    renamed = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    assert renamed.keys() != tensors.keys()
    save_file(renamed, path / SINGLE_FILE, metadata={"format": "pt"})
    resident, streamed = both(path, tmp_path / "scratch")
    assert torch.equal(streamed.logits(ids), resident.logits(ids))


def test_layers_of_different_attention_keep_their_masks(tmp_path: Path, ids: Tensor) -> None:
    path = save_model(tmp_path / "m", "qwen2", use_sliding_window=True, sliding_window=4, max_window_layers=2)
    resident, streamed = both(path, tmp_path / "scratch")
    assert_equal(visited(streamed, ids), visited(resident, ids))  # type: ignore[arg-type]


def test_the_bundled_model_gives_the_same_scores(stories_model: Path, tmp_path: Path) -> None:
    resident, streamed = both(stories_model, tmp_path)
    ids = torch.randint(0, 1000, (3, 64), generator=torch.Generator().manual_seed(0))
    assert score_windows(streamed, ids, 2).scores() == score_windows(resident, ids, 2).scores()


def test_each_pass_reads_every_layer_once_and_keeps_none(
    tiny_directory: Callable[[str], Path], ids: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    streamed = load_streamed(tiny_directory("llama"), "cpu", tmp_path)
    read: list[str] = []
    real = weights.Weights.read

    def counted(self: weights.Weights, name: str, *rest: Any, **named: Any) -> Tensor:
        read.append(name)
        return real(self, name, *rest, **named)

    monkeypatch.setattr(weights.Weights, "read", counted)
    visited(streamed, ids, 1)
    layers = [name for name in read if ".layers." in name]
    assert len(layers) == len(set(layers)) == LAYERS * 9
    assert all(tensor.is_meta for layer in streamed._layers for tensor in layer.parameters())
    assert all(parameter.numel() == 16 for parameter in streamed.model.parameters() if not parameter.is_meta)


def test_weights_under_other_names_are_refused_with_the_reason(tmp_path: Path) -> None:
    path = save_model(tmp_path / "model", "llama")
    tensors = load_file(path / SINGLE_FILE)
    tensors["model.layers.2.mlp.fused"] = tensors.pop("model.layers.2.mlp.up_proj.weight")
    save_file(tensors, path / SINGLE_FILE, metadata={"format": "pt"})
    with pytest.raises(
        EngineError, match=r"no tensor model\.layers\.2\.mlp\.up_proj\.weight; run it resident"
    ) as caught:
        load_streamed(path, "cpu", tmp_path)
    assert caught.value.code == "cannot_stream"


def test_a_file_that_becomes_shorter_is_told_as_such(tmp_path: Path, ids: Tensor) -> None:
    path = save_model(tmp_path / "model", "llama")
    streamed = load_streamed(path, "cpu", tmp_path)
    os.truncate(path / SINGLE_FILE, 9_000)
    with pytest.raises(EngineError, match=r"model\.safetensors became shorter") as caught:
        streamed.logits(ids)
    assert caught.value.code == "corrupt_model"


def test_a_broken_layer_is_named(tmp_path: Path, ids: Tensor) -> None:
    path = save_model(tmp_path / "model", "llama")
    tensors = load_file(path / SINGLE_FILE)
    tensors["model.layers.2.mlp.down_proj.weight"].fill_(float("nan"))
    save_file(tensors, path / SINGLE_FILE, metadata={"format": "pt"})
    with pytest.raises(EngineError, match="before layer 3"):
        score_windows(load_streamed(path, "cpu", tmp_path), ids, 2)


@pytest.mark.usefixtures("on_disk")
def test_a_disk_that_is_too_small_for_the_states_of_one_batch_is_refused(
    tiny_directory: Callable[[str], Path], ids: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    streamed = load_streamed(tiny_directory("llama"), "cpu", tmp_path)
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10_000, 9_000, 1_000))
    with pytest.raises(EngineError, match="1536 bytes are needed") as caught:
        visited(streamed, ids, at={0, 2})
    assert caught.value.code == "disk_full"


def test_an_early_end_leaves_the_model_empty(
    tiny_directory: Callable[[str], Path], ids: Tensor, tmp_path: Path
) -> None:
    streamed = load_streamed(tiny_directory("llama"), "cpu", tmp_path)

    def fails(_: int, row: int, __: Tensor) -> None:
        if row == 2:
            raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        streamed.visit_windows(ids, 1, fails)
    gc.collect()
    assert all(tensor.is_meta for layer in streamed._layers for tensor in layer.parameters())
