"""`swiglu`: h + MLP(norm(h)) with the MLP half of the model's own decoder layer.

Named for the gated MLP of Llama and its kin; OPT and GPT-NeoX bring their ungated one. The down projection starts at
zero, so that the start is exactly the plain cut. State dict names are relative to a decoder layer
(``post_attention_layernorm.weight``, ``mlp.gate_proj.weight``, ...).
"""

from __future__ import annotations

from torch import Tensor, nn

from app.core.architectures import Family
from worker.engine.replacements.starts import Start, inherit, zero


class MlpHalf(nn.Module):
    """The norm and MLP of a decoder layer, as a residual block: [batch, sequence, hidden] -> the same."""

    def __init__(self, layer: nn.Module, family: Family) -> None:
        super().__init__()
        self.steps = (family.mlp_norm, *family.mlp_modules)
        for name in self.steps:
            self.add_module(name, layer.get_submodule(name))

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Return h + MLP(norm(h))."""
        output = hidden_states
        for name in self.steps:
            output = self.get_submodule(name)(output)
        return hidden_states + output


def build(start: Start) -> nn.Module:
    """Return the MLP half with inherited weights and a zero down projection; see `worker.engine.replacements.build`.

    `best` compares the halves with their own down projections: all starts are equal once it is zero.
    """
    block = inherit(start, lambda layer: MlpHalf(layer, start.decoder.family))
    zero(block.get_submodule(start.decoder.family.mlp_down))
    return block
