"""LoRA adapters on the linear maps of a pruned model in memory, by the `peft` library.

An adapted map is a linear layer inside a decoder layer or a replacement whose weight lies in the checkpoint (or in
`replacement.safetensors`) under its own name and in its own shape: what the library joins while it loads (experts) and
what is no plain map (a router) stays as it is.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from worker.engine.errors import EngineError
from worker.engine.healing.updates import Update
from worker.engine.recipe import Healing

_ADAPTER = "default"  # peft's name for the only one


@dataclass(frozen=True)
class Place:
    """A part of the pruned model, and how a weight in it is called in the update file; None where it has no name."""

    module: nn.Module
    name_of: Callable[[str, Tensor], str | None]


class Adapters(nn.Module):
    """The adapters alone as a module: these are its parameters and its state; calling it runs the adapted model."""

    def __init__(self, layers: Mapping[str, Any], logits: Callable[[Tensor], Tensor]) -> None:
        """See `attached`; `layers` maps the name of an adapted weight to peft's layer around its map."""
        super().__init__()
        self._layers, self._logits = dict(layers), logits
        self.weights = nn.ParameterList(
            factor[_ADAPTER].weight for layer in layers.values() for factor in (layer.lora_A, layer.lora_B)
        )

    def forward(self, input_ids: Tensor) -> Tensor:
        """Return the logits [batch, sequence, vocabulary] of ids [batch, sequence] without padding."""
        return self._logits(input_ids)

    @torch.no_grad()
    def updates(self) -> dict[str, Update]:
        """Return what merging the adapters adds to each weight."""
        return {name: _update(layer) for name, layer in self._layers.items()}


def _update(layer: Any) -> Update:
    down, up = layer.lora_A[_ADAPTER].weight.detach(), layer.lora_B[_ADAPTER].weight.detach()
    scaled = up.float() * layer.scaling[_ADAPTER]
    # GPT-2 stores its maps transposed.
    return Update(down.float().t(), scaled.t()) if layer.fan_in_fan_out else Update(scaled, down.float())


@contextmanager
def attached(
    places: Sequence[Place], healing: Healing, logits: Callable[[Tensor], Tensor], seed: int
) -> Iterator[Adapters]:
    """Have adapters on the maps in `places` until the context ends; then the modules are what they were.

    They start as nothing: one factor is random by `seed`, the other zero.

    Args:
        places: the parts of the pruned model; their weights are frozen.
        healing: rank and alpha.
        logits: runs the model that the places belong to.
        seed: of the random factor.

    Raises:
        EngineError: `healing_refused` where there is no map to adapt.
    """
    from peft import LoraConfig
    from peft.tuners.lora import LoraModel

    whole = nn.ModuleList(place.module for place in places)
    whole.requires_grad_(False)
    named = {
        f"{number}.{name}": place.name_of(f"{name}.weight", module.weight)
        for number, place in enumerate(places)
        for name, module in place.module.named_modules()
        if isinstance(module, nn.Linear | Conv1D) and _is_map(module)
    }
    targets = {name: stored for name, stored in named.items() if stored is not None}
    if not targets:
        raise EngineError("healing_refused", "no linear map of this model is stored as it is computed with")
    config = LoraConfig(r=healing.rank, lora_alpha=healing.alpha, target_modules=list(targets))
    with torch.random.fork_rng(), warnings.catch_warnings():
        torch.manual_seed(seed)
        # It finds out for each map which way round it is stored, and says so each time.
        warnings.filterwarnings("ignore", message="fan_in_fan_out is set to")
        tuner = LoraModel(whole, config, _ADAPTER)
    # The tuner gives adapters the dtype of the map beside them, and half precision loses their small steps.
    for name, parameter in whole.named_parameters():
        if f".{_ADAPTER}." in name:
            parameter.data = parameter.data.float()
    try:
        yield Adapters({stored: whole.get_submodule(name) for name, stored in targets.items()}, logits)
    finally:
        tuner.unload()


@torch.no_grad()
def _is_map(module: nn.Linear | Conv1D) -> bool:
    """Tell a map from a router, which is a linear layer too and answers with a choice."""
    width = module.weight.shape[0 if isinstance(module, Conv1D) else 1]
    return isinstance(module(module.weight.new_zeros(1, width)), Tensor)
