"""What several layers in place of a window promise: even groups, inherited weights, one stream through all."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from worker.engine.decoder import Decoder
from worker.engine.recipe import Init
from worker.engine.replacements import build
from worker.engine.replacements.layer import LayerSequence, even_groups
from worker.engine.replacements.starts import Start
from worker.engine.training.stage import block_arguments


def made(decoder: Decoder, init: Init, error: object = None, layers: int = 2) -> LayerSequence:
    start = Start(decoder, 1, 5, init, 0, error or (lambda _: 0.0), layers)  # type: ignore[arg-type]
    block = build("layer", start)
    assert isinstance(block, LayerSequence)
    return block


def same(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))


@given(st.integers(0, 20), st.integers(1, 40), st.data())
def test_groups_are_even_and_cover_the_window(first: int, size: int, data: st.DataObject) -> None:
    count = data.draw(st.integers(1, size))
    groups = even_groups(first, first + size, count)
    assert [groups[0][0], groups[-1][1], len(groups)] == [first, first + size, count]
    assert all(a[1] == b[0] for a, b in pairwise(groups))
    sizes = {end - start for start, end in groups}
    assert max(sizes) - min(sizes) <= 1
    assert min(sizes) >= 1


def test_each_layer_inherits_from_its_group(decoder: Decoder) -> None:
    for init, sources in (("first", (1, 3)), ("last", (2, 4))):
        block = made(decoder, init)  # type: ignore[arg-type]
        assert [same(layer, decoder.layers[i]) for layer, i in zip(block, sources, strict=True)] == [True, True]
    first, second = made(decoder, "random")
    assert not same(first, second)


def test_best_goes_through_the_groups_with_the_others_as_they_stand(decoder: Decoder) -> None:
    wanted = (decoder.layers[2], decoder.layers[3])

    def error(block: nn.Module) -> float:
        assert isinstance(block, LayerSequence)
        return sum(not same(layer, right) for layer, right in zip(block, wanted, strict=True))

    block = made(decoder, "best", error)
    assert all(same(layer, right) for layer, right in zip(block, wanted, strict=True))


def test_the_sequence_computes_what_its_layers_do_in_the_model(decoder: Decoder, ids: Tensor) -> None:
    states = decoder.hidden_states(ids)
    block = LayerSequence([decoder.layers[1], decoder.layers[2]])
    arguments = block_arguments(decoder, 1, ids.shape[1], 2)(len(ids))
    with torch.no_grad():
        torch.testing.assert_close(block(states[1], **arguments), states[3])


def test_in_the_model_each_layer_has_a_place_of_its_own(decoder: Decoder, ids: Tensor) -> None:
    dense = decoder.logits(ids)
    with decoder.with_layers(1, 3, LayerSequence([decoder.layers[1], decoder.layers[2]])):
        torch.testing.assert_close(decoder.logits(ids), dense)
    with decoder.with_layers(1, 4, made(decoder, "first")):
        config: Any = decoder.model.config
        assert len(decoder.layers) == config.num_hidden_layers == 4
    torch.testing.assert_close(decoder.logits(ids), dense)


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_building_leaves_the_model_alone(decoder: Decoder, layers: int) -> None:
    before = [parameter.clone() for parameter in decoder.model.parameters()]
    block = build("layer", Start(decoder, 1, 5, "mean", 0, lambda _: 0.0, layers))
    assert block is not None
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.fill_(7.0)
    assert all(torch.equal(a, b) for a, b in zip(before, decoder.model.parameters(), strict=True))
