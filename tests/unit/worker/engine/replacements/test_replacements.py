"""What the blocks promise: their start, their names, their size, for every family."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from app.core.architectures import (
    BLOCK_KINDS,
    BlockKind,
    block_parameters,
    ffn_tensors,
    layer_tensors,
    linear_tensors,
    mlp_half_tensors,
)
from worker.engine.decoder import Decoder
from worker.engine.recipe import Init
from worker.engine.replacements import build
from worker.engine.replacements.starts import Start

NAMES = {
    "ffn": ffn_tensors, "swiglu": mlp_half_tensors, "layer": layer_tensors, "linear_residual": linear_tensors
}  # fmt: skip
BLOCKS: tuple[BlockKind, ...] = ("ffn", "swiglu", "layer", "linear_residual")


def made(decoder: Decoder, kind: BlockKind, init: Init = "first", seed: int = 0, error: Any = None) -> nn.Module:
    block = build(kind, Start(decoder, 1, 4, init, seed, error or (lambda _: 0.0)))
    assert block is not None
    return block


def state(layer: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in layer.state_dict().items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_none_puts_nothing_in(llama: Decoder) -> None:
    assert build("none", Start(llama, 1, 4, "best", 0, lambda _: 0.0)) is None


@pytest.mark.parametrize("kind", BLOCKS)
def test_state_names_shapes_and_count_are_those_of_the_plan(decoder: Decoder, kind: BlockKind) -> None:
    block = made(decoder, kind)
    shapes = {name: tuple(tensor.shape) for name, tensor in block.state_dict().items()}
    assert shapes == NAMES[kind](decoder.config)
    assert sum(p.numel() for p in block.parameters()) == block_parameters(decoder.config, kind)


@pytest.mark.parametrize("init", ["first", "last", "mean", "random", "best", "closed_form"])
@pytest.mark.parametrize("kind", ["ffn", "swiglu", "linear_residual"])
def test_residual_blocks_start_as_the_plain_cut(decoder: Decoder, kind: BlockKind, init: Init) -> None:
    h = torch.randn(2, 7, 16)
    assert torch.equal(made(decoder, kind, init)(h), h)


def test_a_layer_inherits_the_layer_that_init_names(decoder: Decoder) -> None:
    layers = list(decoder.layers)
    assert same(state(made(decoder, "layer", "first")), state(layers[1]))
    assert same(state(made(decoder, "layer", "last")), state(layers[3]))
    mean = state(made(decoder, "layer", "mean"))
    for name, tensor in mean.items():
        expected = torch.stack([layer.state_dict()[name] for layer in layers[1:4]]).mean(0)
        torch.testing.assert_close(tensor, expected)


def test_best_takes_the_layer_with_the_lowest_held_out_error(decoder: Decoder) -> None:
    wanted = state(decoder.layers[2])

    def error(candidate: nn.Module) -> float:
        return 0.0 if same(state(candidate), wanted) else 1.0

    assert same(state(made(decoder, "layer", "best", error=error)), wanted)


def test_random_is_drawn_from_the_seed_alone(decoder: Decoder) -> None:
    for kind in BLOCKS:
        assert same(state(made(decoder, kind, "random", 3)), state(made(decoder, kind, "random", 3)))
    assert not same(state(made(decoder, "layer", "random", 3)), state(made(decoder, "layer", "random", 4)))


@pytest.mark.parametrize("kind", BLOCKS)
@pytest.mark.parametrize("init", ["first", "mean", "random", "best"])
def test_building_and_changing_a_block_leaves_the_model_alone(decoder: Decoder, kind: BlockKind, init: Init) -> None:
    before = state(decoder.model)
    block = made(decoder, kind, init)
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.fill_(7.0)
    assert same(state(decoder.model), before)


def test_every_kind_of_the_plan_can_be_built() -> None:
    from worker.engine.replacements import BUILDERS

    assert set(BUILDERS) == set(BLOCK_KINDS)
