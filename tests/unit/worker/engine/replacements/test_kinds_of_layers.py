"""What the blocks promise where layers are of two kinds, or norms stand behind the MLP."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.unit.worker.engine.replacements.test_replacements import made, same, state
from worker.engine.decoder import load_decoder

Directory = Callable[[str], Path]


@pytest.mark.parametrize(("family", "last"), [("llama4_text", 3), ("qwen3_moe", 1), ("deepseek_v3", 1)])
def test_a_layer_inherits_from_layers_of_the_first_ones_kind(tiny_directory: Directory, family: str, last: int) -> None:
    decoder = load_decoder(tiny_directory(family), "cpu")
    assert same(state(made(decoder, "layer", "last")), state(decoder.layers[last]))
    wanted = state(decoder.layers[last])
    best = made(decoder, "layer", "best", error=lambda layer: 0.0 if same(state(layer), wanted) else 1.0)
    assert same(state(best), wanted)
    assert state(made(decoder, "layer", "mean")).keys() == wanted.keys()


@pytest.mark.parametrize("family", ["gemma2", "gemma3_text", "olmo2"])
def test_a_block_with_a_norm_behind_it_starts_as_the_plain_cut_and_can_move(
    tiny_directory: Directory, family: str
) -> None:
    decoder = load_decoder(tiny_directory(family), "cpu")
    block = made(decoder, "swiglu", "last").requires_grad_(True)
    h = torch.randn(2, 7, 16)
    assert torch.equal(block(h), h)
    block(h).square().sum().backward()
    gradients = {name: parameter.grad for name, parameter in block.named_parameters()}
    assert gradients["post_feedforward_layernorm.weight"].abs().max() > 0  # type: ignore[union-attr]
    down = decoder.layers[3].get_submodule("mlp.down_proj").weight
    assert torch.equal(block.get_submodule("mlp.down_proj").weight, down), "inherited, not zero"  # type: ignore[arg-type]


def test_a_norm_drawn_anew_multiplies_by_one_in_every_family(tiny_directory: Directory) -> None:
    for family in ("llama", "gemma2"):
        layer = made(load_decoder(tiny_directory(family), "cpu"), "layer", "random")
        x = torch.randn(3, 16)
        found = layer.get_submodule("input_layernorm")(x)
        torch.testing.assert_close(found, x * x.square().mean(-1, keepdim=True).rsqrt(), rtol=1e-3, atol=1e-3)
