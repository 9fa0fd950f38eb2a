"""What running layers promises, for every family."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.unit.worker.engine.tiny_models import CONFIGS, FURTHER, LAYERS, save_model
from worker.engine.decoder import Decoder, load_decoder
from worker.engine.device import stored_dtype
from worker.engine.stand_ins import hidden_of


def model_of(decoder: Decoder) -> Any:
    """The model, whose attributes no type checker knows."""
    return decoder.model


class CountedRuns:
    def __init__(self, module: nn.Module) -> None:
        self.count = 0
        self._handle = module.register_forward_hook(self._seen)

    def _seen(self, *_: Any) -> None:
        self.count += 1


class Doubled(nn.Module):
    def forward(self, hidden_states: Tensor) -> Tensor:
        return 2 * hidden_states


def test_hidden_states_are_those_of_the_model_with_the_last_one_before_the_final_norm(
    decoder: Decoder, ids: Tensor
) -> None:
    mine = decoder.hidden_states(ids)
    theirs = decoder.body(input_ids=ids, output_hidden_states=True)
    assert len(mine) == LAYERS + 1
    for h, expected in zip(mine[:-1], theirs.hidden_states[:-1], strict=True):
        torch.testing.assert_close(h, expected)
    norm = model_of(decoder).get_submodule(decoder.family.final_norm)
    torch.testing.assert_close(norm(mine[-1].clone()), theirs.last_hidden_state)
    assert not torch.allclose(mine[-1], theirs.last_hidden_state)


def test_nothing_past_the_last_wanted_layer_runs(decoder: Decoder, ids: Tensor) -> None:
    runs = [CountedRuns(layer) for layer in decoder.layers]
    head = CountedRuns(model_of(decoder).get_output_embeddings())
    states = decoder.hidden_states(ids, upto=3)
    assert len(states) == 4
    assert [run.count for run in runs] == [1, 1, 1, 0, 0]
    assert head.count == 0


def test_padding_changes_no_state_of_a_real_token(decoder: Decoder, ids: Tensor) -> None:
    mask = torch.ones_like(ids)
    mask[0, 8:] = 0
    padded = decoder.hidden_states(ids, attention_mask=mask)
    short = decoder.hidden_states(ids[:1, :8])
    for h, expected in zip(padded, short, strict=True):
        torch.testing.assert_close(h[:1, :8], expected, atol=2e-4, rtol=2e-4)


@pytest.mark.parametrize("window", [(0, 2), (1, 3), (3, 5)], ids=["start", "middle", "end"])
def test_a_cut_window_is_a_model_without_these_layers_and_comes_back(
    any_decoder: Decoder, ids: Tensor, window: tuple[int, int]
) -> None:
    start, end = window
    before = any_decoder.logits(ids)
    layers = list(any_decoder.layers)
    with any_decoder.with_layers(start, end):
        assert list(any_decoder.layers) == layers[:start] + layers[end:]
        assert model_of(any_decoder).config.num_hidden_layers == LAYERS - (end - start)
        cut = any_decoder.logits(ids)
        generated = model_of(any_decoder).generate(
            ids[:1], max_new_tokens=4, min_new_tokens=4, do_sample=False, use_cache=True, pad_token_id=1
        )
        greedy = ids[:1]
        for _ in range(4):
            scores = any_decoder.logits(greedy)[:, -1].clone()
            scores[:, 0] = -torch.inf  # min_new_tokens bars the end of text
            greedy = torch.cat((greedy, scores.argmax(-1, keepdim=True)), dim=1)
        assert generated.tolist() == greedy.tolist()
    assert not torch.allclose(before, cut)
    assert torch.equal(any_decoder.logits(ids), before)
    assert {m.layer_idx for m in any_decoder.layers[-1].modules() if hasattr(m, "layer_idx")} == {LAYERS - 1}


@pytest.mark.parametrize("window", [(0, 2), (1, 3), (3, 5)], ids=["start", "middle", "end"])
def test_a_block_without_attention_sees_the_state_at_the_window(
    decoder: Decoder, ids: Tensor, window: tuple[int, int]
) -> None:
    start, end = window
    seen: list[Tensor] = []
    block = Doubled()
    block.register_forward_hook(lambda _, args, __: seen.append(args[0]))
    expected = decoder.hidden_states(ids, upto=start)[start]
    with decoder.with_layers(start, end, block):
        decoder.logits(ids)
        assert len(decoder.layers) == LAYERS - (end - start)
    torch.testing.assert_close(seen[0], expected)


def test_a_decoder_layer_put_back_in_its_own_place_changes_nothing(any_decoder: Decoder, ids: Tensor) -> None:
    before = any_decoder.logits(ids)
    with any_decoder.with_layers(2, 3, any_decoder.layers[2]):
        assert torch.equal(any_decoder.logits(ids), before)


def test_layer_arguments_let_a_layer_run_by_itself(any_decoder: Decoder, ids: Tensor) -> None:
    states = any_decoder.hidden_states(ids)
    for index in (0, 2, LAYERS - 1):
        arguments = any_decoder.layer_arguments(index, *ids.shape)
        with torch.no_grad():
            output = hidden_of(any_decoder.layers[index](states[index].clone(), **arguments))
        torch.testing.assert_close(output, states[index + 1])


def test_layers_of_different_attention_keep_their_masks(tmp_path: Path, ids: Tensor) -> None:
    path = save_model(
        tmp_path, "qwen2", use_sliding_window=True, sliding_window=4, max_window_layers=2,
    )  # fmt: skip
    decoder = load_decoder(path, "cpu")
    assert model_of(decoder).config.layer_types == ["full_attention"] * 2 + ["sliding_attention"] * 3
    states = decoder.hidden_states(ids)
    arguments = decoder.layer_arguments(3, *ids.shape)
    with torch.no_grad():
        torch.testing.assert_close(decoder.layers[3](states[3].clone(), **arguments), states[4])
    with decoder.with_layers(1, 3):
        assert model_of(decoder).config.layer_types == ["full_attention", "sliding_attention", "sliding_attention"]
    assert len(model_of(decoder).config.layer_types) == LAYERS


@pytest.mark.parametrize("model_type", [*CONFIGS, *FURTHER])
def test_tied_embeddings_and_half_precision_load_as_float32_on_cpu(tmp_path: Path, model_type: str) -> None:
    path = save_model(tmp_path, model_type, tie_word_embeddings=True, dtype=torch.bfloat16)
    decoder = load_decoder(path, "cpu")
    assert decoder.dtype == torch.float32
    assert decoder.stored_dtype == torch.bfloat16
    assert torch.isfinite(decoder.logits(torch.tensor([[2, 3, 4]]))).all()


def test_the_stored_dtype_is_that_of_the_weights_and_not_of_the_config(tmp_path: Path) -> None:
    path = save_model(tmp_path, "llama", dtype=torch.float16)
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | {"dtype": "bfloat16", "torch_dtype": "bfloat16"}))
    assert stored_dtype(path) == torch.float16
