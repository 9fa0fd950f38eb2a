"""From the names of a loaded layer's tensors to those of the checkpoint that it came from.

The library renames and joins tensors while it loads (Mixtral's experts lie one by one in the files and are one tensor
in memory), and does the reverse when it saves. The reverse is applied only where the source is stored so.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch

from app.core.architectures import Config, Shapes, layer_count


def as_stored(
    config: Config, layer: int, tensors: Mapping[str, torch.Tensor], stored: Shapes
) -> dict[str, torch.Tensor]:
    """Return a layer's tensors, named relative to it, in the form that `stored` (name -> shape) has.

    Where no known form has those names, the tensors come back as they are.
    """
    if tensors.keys() == stored.keys():
        return dict(tensors)
    # Only where names differ: the library's import is half of what assembly would weigh.
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.core_model_loading import revert_weight_conversion

    from worker.engine.decoder import layers_path

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**copy.deepcopy(dict(config))))
    place = f"{layers_path(model, layer_count(config))}.{layer}."
    reverted = revert_weight_conversion(model, {f"{place}{name}": tensor for name, tensor in tensors.items()})
    return {name.removeprefix(place): tensor.contiguous() for name, tensor in reverted.items()}
