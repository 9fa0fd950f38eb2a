"""What healing leaves behind: for each linear map a matrix of low rank that is added to the weight as it is stored.

The two factors are a thousandth of the weights. The file is all that the stages behind healing know of it: `assemble`
adds while it writes, one tensor at a time, and the pruned model in memory adds the same numbers in the same way.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save
from torch import Tensor

from app.core.discovery import layer_of
from app.core.safetensors_file import Checkpoint
from worker.engine.context import REPLACEMENT, StageContext, write_bytes
from worker.engine.decoder import Decoder
from worker.engine.surgery import read_tensor, stored_in

UPDATES = "healing.safetensors"
_OF_REPLACEMENT = "replacement."
_LEFT, _RIGHT = ".left", ".right"


@dataclass(frozen=True)
class Update:
    """The weight [rows, columns] becomes W + left right; `left` [rows, rank], `right` [rank, columns], float32."""

    left: Tensor
    right: Tensor

    def applied(self, weight: Tensor) -> Tensor:
        """Return the new weight, float32, on the device of the old one, which stays as it is."""
        widened = weight.detach().to(torch.float32, copy=True)
        return widened.addmm_(self.left.to(weight.device), self.right.to(weight.device))


Updates = Mapping[str, Update]
"""By the stored name of the weight, or its name in the replacement; see `of_replacement`."""


def write_updates(path: Path, updates: Updates) -> None:
    """Write updates atomically."""
    tensors = {f"{name}{_LEFT}": update.left.cpu().contiguous() for name, update in updates.items()}
    tensors |= {f"{name}{_RIGHT}": update.right.cpu().contiguous() for name, update in updates.items()}
    write_bytes(path, save(tensors))


def updates_of(context: StageContext) -> dict[str, Update]:
    """Return what healing left behind; nothing where the recipe asks for none or the start was kept."""
    if context.recipe.healing is None:
        return {}
    tensors = load_file(context.workspace / UPDATES)
    names = [name.removesuffix(_LEFT) for name in tensors if name.endswith(_LEFT)]
    return {name: Update(tensors[f"{name}{_LEFT}"], tensors[f"{name}{_RIGHT}"]) for name in names}


def of_replacement(window: int, name: str) -> str:
    """Return what a tensor of a window's replacement is called here; all others have their stored names."""
    return f"{_OF_REPLACEMENT}{window}.{name}"


def updated_replacement(context: StageContext, window: int, updates: Updates) -> dict[str, Tensor]:
    """Return the tensors of a window's trained replacement with their updates; those without one as they are."""
    tensors = load_file(context.window(window) / REPLACEMENT)
    found = {name: updates.get(of_replacement(window, name)) for name in tensors}
    return {name: tensor if (u := found[name]) is None else u.applied(tensor) for name, tensor in tensors.items()}


@contextmanager
@torch.no_grad()
def healed(
    decoder: Decoder, updates: Updates, layers: str, dtype: torch.dtype, checkpoint: Checkpoint
) -> Iterator[None]:
    """Compute with the updated weights of the dense model's layers until the context ends.

    No weight is kept twice: afterwards those that were updated are read from the model's files again.

    Args:
        decoder: the dense model.
        updates: those of a replacement do not concern it.
        layers: the stored path of the decoder layers.
        dtype: what the written weights are rounded to.
        checkpoint: the dense model's files.
    """
    changed: dict[str, Tensor] = {}
    try:
        for name, update in updates.items():
            layer, rest = layer_of(layers, name)
            if layer is None:
                continue
            weight: Tensor = decoder.layers[layer].get_parameter(rest)
            changed[name] = weight
            weight.copy_(update.applied(weight).to(dtype))
        yield
    finally:
        for name, weight in changed.items():
            weight.copy_(read_tensor(stored_in(checkpoint, name)))
