"""`ffn`: h + W2 act(W1 norm(h)), d -> 4d -> d (LLM-Streamline, arXiv 2403.19135, section 3.2).

The norm's class and the activation are the family's, and there are biases where the family's MLP has them. W2 starts at
zero, so that the start is exactly the plain cut. State dict names: ``norm.weight``, ``up_proj.weight``,
``down_proj.weight`` and the biases.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers.activations import ACT2FN

from app.core.architectures import FFN_WIDTH, config_value, hidden_size
from worker.engine.replacements.starts import Start, inherit, zero


class FeedForward(nn.Module):
    """The residual block: [batch, sequence, hidden] -> the same."""

    def __init__(self, norm: nn.Module, hidden: int, *, bias: bool, activation: Any) -> None:
        super().__init__()
        self.norm = norm
        self.up_proj = nn.Linear(hidden, FFN_WIDTH * hidden, bias=bias)
        self.down_proj = nn.Linear(FFN_WIDTH * hidden, hidden, bias=bias)
        self.activation = activation

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Return h + W2 act(W1 norm(h))."""
        output: Tensor = self.down_proj(self.activation(self.up_proj(self.norm(hidden_states))))
        return hidden_states + output


def build(start: Start) -> nn.Module:
    """Return the block; `init` tells which layer's MLP norm it inherits, the up projection is always drawn anew.

    A norm has no error of its own to compare, so `best` and `closed_form` take the first layer's.
    """
    decoder = start.decoder
    family = decoder.family
    chosen = replace(start, init="first") if start.init in ("best", "closed_form") else start
    layer = inherit(chosen, lambda layer: layer)
    own_down = layer.get_submodule(family.mlp_down)
    block = FeedForward(
        layer.get_submodule(family.mlp_norm),
        hidden_size(decoder.config),
        bias=getattr(own_down, "bias", None) is not None,
        activation=ACT2FN[config_value(decoder.config, family.activation_field)],
    ).to(decoder.device, decoder.dtype)
    _draw(block.up_proj, start.seed)
    zero(block.down_proj)
    return block.requires_grad_(False)


@torch.no_grad()
def _draw(projection: nn.Linear, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    # Unit variance in, unit variance out: the norm in front gives about one per number.
    spread = 1 / math.sqrt(projection.in_features)
    projection.weight.copy_(torch.randn(projection.weight.shape, generator=generator) * spread)
    if projection.bias is not None:
        projection.bias.zero_()
