"""A causal language model in which one trained block stands where a run of decoder layers was removed.

This file travels with the checkpoint: `AutoModelForCausalLM.from_pretrained(..., trust_remote_code=True)` loads it, and
it needs torch and transformers only. The block computes h + MLP(norm(h)), or h + a linear map of h, on the hidden state
h [batch, sequence, hidden]. It has no attention, so it is no entry of the layer list: it hangs on a neighbouring
decoder layer, and `num_hidden_layers` stays the number of attention layers. Key-value caches number their slots by
attention layer; a block with a slot of its own would leave that slot empty, which breaks static caches and
token-by-token decoding.

`config.streamline` describes it:
    layers        path of the layer list ("model.layers")
    position      index of the decoder layer that the block hangs on
    side          "before" or "after" that layer's own computation
    activation_field, hidden_act    the config field of the model's own activation, and what belongs there: in
                  config.json a sentence stands in its place, so that nothing loads the model without this file
    block         "swiglu" (the family's own MLP half), "ffn" (hidden -> intermediate_size -> hidden), or
                  "linear_residual" (hidden -> hidden), which needs none of the fields below
    steps         swiglu: names of the decoder layer's modules that make up its MLP half, norms included, in order
    scale         swiglu: factor on what they compute
    norm          ffn: name of the decoder layer's norm whose kind and epsilon the block's norm has
    intermediate_size, bias    ffn: width, and whether its two maps have biases
"""

from typing import Any

import torch
import transformers
from torch import nn
from transformers import PreTrainedConfig
from transformers.activations import ACT2FN


class MLPHalfBlock(nn.Module):
    """h + MLP(norm(h)) with the MLP and the norm of the model's own decoder layer; parameters keep their names."""

    def __init__(self, config: PreTrainedConfig, layer_class: type[nn.Module]) -> None:
        super().__init__()
        layer = layer_class(config, 0)
        self.steps, self.scale = tuple(config.streamline["steps"]), config.streamline["scale"]
        for name in self.steps:
            setattr(self, name, getattr(layer, name))

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Map hidden states [batch, sequence, hidden] to the same shape and dtype."""
        update = hidden_states
        for name in self.steps:
            update = getattr(self, name)(update)
        output: torch.Tensor = hidden_states + self.scale * update
        return output


class FeedForwardBlock(nn.Module):
    """h + down_proj(act(up_proj(norm(h)))), hidden -> intermediate_size -> hidden."""

    def __init__(self, config: PreTrainedConfig, layer_class: type[nn.Module]) -> None:
        super().__init__()
        spec = config.streamline
        self.norm = getattr(layer_class(config, 0), spec["norm"])
        self.up_proj = nn.Linear(config.hidden_size, spec["intermediate_size"], bias=spec["bias"])
        self.act_fn = ACT2FN[spec["hidden_act"]]
        self.down_proj = nn.Linear(spec["intermediate_size"], config.hidden_size, bias=spec["bias"])

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Map hidden states [batch, sequence, hidden] to the same shape and dtype."""
        update: torch.Tensor = self.down_proj(self.act_fn(self.up_proj(self.norm(hidden_states))))
        return hidden_states + update


class LinearResidualBlock(nn.Module):
    """h + proj(h), one linear map without a norm in front."""

    def __init__(self, config: PreTrainedConfig, _: type[nn.Module]) -> None:
        super().__init__()
        self.proj = nn.Linear(config.hidden_size, config.hidden_size, bias=False)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Map hidden states [batch, sequence, hidden] to the same shape and dtype."""
        update: torch.Tensor = self.proj(hidden_states)
        return hidden_states + update


BLOCKS = {"swiglu": MLPHalfBlock, "ffn": FeedForwardBlock, "linear_residual": LinearResidualBlock}


def with_block(layer_class: type[nn.Module], *, before: bool) -> type[nn.Module]:
    """Derive a decoder layer class that runs its `streamline_block` before, or after, the layer itself.

    The class keeps its name, because device maps find the layers that must not be split by it.
    """

    def block_first(self: Any, hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        return layer_class.forward(self, self.streamline_block(hidden_states), *args, **kwargs)

    def block_last(self: Any, hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        output = layer_class.forward(self, hidden_states, *args, **kwargs)
        if isinstance(output, tuple):
            return (self.streamline_block(output[0]), *output[1:])
        return self.streamline_block(output)

    return type(layer_class.__name__, (layer_class,), {"forward": block_first if before else block_last})


class StreamlineMixin(nn.Module):
    """Hangs the block that `config.streamline` describes on its decoder layer."""

    def __init__(self, config: PreTrainedConfig, *args: Any, **kwargs: Any) -> None:
        spec = config.streamline
        setattr(config, spec["activation_field"], spec["hidden_act"])
        super().__init__(config, *args, **kwargs)
        layer: Any = self.get_submodule(f"{spec['layers']}.{spec['position']}")
        layer_class = type(layer)
        layer.streamline_block = BLOCKS[spec["block"]](config, layer_class)
        layer.__class__ = with_block(layer_class, before=spec["side"] == "before")


def __getattr__(name: str) -> type[nn.Module]:
    """Derive `StreamlineLlamaForCausalLM` from the library's `LlamaForCausalLM`, and so for every architecture."""
    base = getattr(transformers, name.removeprefix("Streamline"), None) if name.startswith("Streamline") else None
    if base is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    model_class = type(name, (StreamlineMixin, base), {"__module__": __name__})
    globals()[name] = model_class
    return model_class
