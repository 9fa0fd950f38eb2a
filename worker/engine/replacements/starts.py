"""Where a block's first weights come from: one of the pruned layers, their mean, or chance."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from worker.engine.hidden_states import LayeredModel
from worker.engine.recipe import Init

HeldOutError = Callable[[nn.Module], float]
"""Mean squared error of a block on held-out pairs of hidden states."""


@dataclass(frozen=True)
class Start:
    """A window and where its block's first weights come from.

    Attributes:
        decoder: the dense model; its layers are copied, never changed.
        first: first layer of the window.
        end: the layer after the last one.
        init: `first`, `last`, `mean` of the window, `random`, or `best`: the layer with the lowest `error`.
            `closed_form` starts from the best one too; see `worker.engine.replacements.refit` for what follows.
        seed: for what is drawn at random.
        error: called for `best` and `closed_form` only.
        layers: decoder layers to put in, for kind `layer`.
    """

    decoder: LayeredModel
    first: int
    end: int
    init: Init
    seed: int
    error: HeldOutError
    layers: int = 1


def inherit(start: Start, make: Callable[[nn.Module], nn.Module], place: int | None = None) -> nn.Module:
    """Return a fresh block; `make` turns a decoder layer (a copy, free to be taken apart) into it.

    The slot's place-bound parts (cache slot, attention type) are those of the layer at `place`, by default the
    window's first; only weights are inherited.
    """
    layer = start.decoder.layer
    window = range(start.first, start.end)
    slot = layer(start.first if place is None else place)

    def of_its_kind(indices: Iterable[int]) -> Iterator[tuple[int, nn.Module]]:
        # Where a model mixes kinds of layers (dense and experts), those of the slot's kind have weights for it.
        return ((index, found) for index in indices if _shapes(found := layer(index)) == _shapes(slot))

    match start.init:
        case "random":
            randomise(slot, start.decoder.model.config, start.seed)
        case "mean":
            _average(slot, (found for _, found in of_its_kind(window)))
        case "last":
            _filled(slot, next(of_its_kind(reversed(window)))[1])
        case "best" | "closed_form" if len(window) > 1:
            tried = [
                (start.error(make(_filled(copy.deepcopy(slot), found))), index) for index, found in of_its_kind(window)
            ]
            _filled(slot, layer(min(tried)[1]))
        case _ if place is not None:
            _filled(slot, next(of_its_kind(window))[1])
    return make(slot)


def _shapes(layer: nn.Module) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in layer.state_dict().items()}


def _filled(slot: nn.Module, layer: nn.Module) -> nn.Module:
    slot.load_state_dict(layer.state_dict())
    return slot


def _average(slot: nn.Module, layers: Iterable[nn.Module]) -> None:
    """Fill `slot` with the mean of layers, of which one at a time is in memory."""
    sums: dict[str, Tensor] = {}
    for count, layer in enumerate(layers, start=1):
        for name, tensor in layer.state_dict().items():
            sums[name] = tensor.float() if count == 1 else sums[name] + tensor.float()
    slot.load_state_dict({name: total / count for name, total in sums.items()})


@torch.no_grad()
def randomise(module: nn.Module, config: Any, seed: int) -> None:
    """Draw a module's weights anew, as its family initialises them: normal linear weights, zero biases, unit norms."""
    generator = torch.Generator().manual_seed(seed)
    spread = float(getattr(config, "initializer_range", None) or getattr(config, "init_std", None) or 0.02)
    for name, parameter in module.named_parameters():
        if parameter.ndim > 1:
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * spread)
        elif name.endswith("bias"):
            parameter.zero_()
        else:
            # Gemma's norms multiply by one plus their weight.
            norm = module.get_submodule(name.rpartition(".")[0])
            parameter.fill_(0.0 if type(norm).__name__.startswith("Gemma") else 1.0)


@torch.no_grad()
def zero(projection: nn.Module) -> None:
    """Set a projection's weight and bias to zero: the residual block starts as the identity."""
    for parameter in projection.parameters():
        parameter.zero_()
