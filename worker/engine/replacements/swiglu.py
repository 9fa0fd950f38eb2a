"""`swiglu`: h + MLP(norm(h)) with the MLP half of the model's own decoder layer.

Named for the gated MLP of Llama and its kin; OPT and GPT-NeoX bring their ungated one. The down projection starts at
zero, so that the start is exactly the plain cut. State dict names are relative to a decoder layer
(``post_attention_layernorm.weight``, ``mlp.gate_proj.weight``, ...).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from app.core.architectures import Family, branch_scale
from worker.engine.replacements.starts import Start, inherit, zero


class MlpHalf(nn.Module):
    """The norm and MLP of a decoder layer, as a residual block: [batch, sequence, hidden] -> the same."""

    def __init__(self, layer: nn.Module, family: Family, scale: float) -> None:
        super().__init__()
        self.steps, self.scale = family.mlp_steps, scale
        for name in self.steps:
            self.add_module(name, layer.get_submodule(name))

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Return h + scale MLP(norm(h))."""
        output = hidden_states
        for name in self.steps:
            output = self.get_submodule(name)(output)
        return hidden_states + self.scale * output


def build(start: Start) -> nn.Module:
    """Return the MLP half with inherited weights and a zero down projection; see `worker.engine.replacements.build`.

    `best` compares the halves with their own down projections: all starts are equal once it is zero.
    """
    family, scale = start.decoder.family, branch_scale(start.decoder.config)
    block = inherit(start, lambda layer: MlpHalf(layer, family, scale))
    if family.mlp_modules[-1].endswith("norm"):
        silence(block.get_submodule(family.mlp_modules[-1]))
    else:
        zero(block.get_submodule(family.mlp_down))
    return block


@torch.no_grad()
def silence(norm: nn.Module) -> None:
    """Set a norm's weight so that it gives zeros: the residual block behind which it stands starts as the identity.

    A zero projection in front of a norm would be no start: its first step away from zero is blown up to full size.
    Gemma's norms multiply by one plus their weight.
    """
    weight = next(norm.parameters())
    weight.zero_()
    if norm(torch.ones_like(weight)).abs().max() > 0:
        weight.fill_(-1.0)
