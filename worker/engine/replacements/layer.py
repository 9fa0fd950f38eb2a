"""`layer`: decoder layers of the model's own class (LLM-Streamline, arXiv 2403.19135, section 3.2).

One layer's state dict has the layer's own names; several have their number in front (``0.mlp.down_proj.weight``).
Either way the checkpoint keeps a stock architecture.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from worker.engine.replacements.starts import Start, inherit
from worker.engine.stand_ins import hidden_of


class LayerSequence(nn.ModuleList):
    """Decoder layers one behind the other: [batch, sequence, hidden] -> the same."""

    def forward(self, hidden_states: Tensor, per_layer: Sequence[Mapping[str, Any]]) -> Tensor:
        """Run the layers, each with what the model hands to the layer at its place beside the hidden states."""
        for layer, arguments in zip(self, per_layer, strict=True):
            hidden_states = hidden_of(layer(hidden_states, **arguments))
        return hidden_states


def build(start: Start) -> nn.Module:
    """Return one decoder layer, or a sequence of them, with inherited weights; see `replacements.build`.

    For several layers the window is split into as many even groups, and each layer inherits from its group. `best` goes
    through the groups in order: it tries each layer of the group with the others as they stand.
    """
    if start.layers == 1:
        return inherit(start, lambda layer: layer)
    groups = even_groups(start.first, start.end, start.layers)
    of_group = [replace(start, first=first, end=end, seed=start.seed + i) for i, (first, end) in enumerate(groups)]
    places = range(start.first, start.end)
    sequence = LayerSequence(
        inherit(replace(group, init="first"), lambda layer: layer, place)
        for group, place in zip(of_group, places, strict=False)
    )
    for i, group in enumerate(of_group):

        def error(candidate: nn.Module, i: int = i) -> float:
            sequence[i] = candidate
            return start.error(sequence)

        sequence[i] = inherit(replace(group, error=error), lambda layer: layer, places[i])
    return sequence


def even_groups(first: int, end: int, count: int) -> list[tuple[int, int]]:
    """Split the layers [first, end) into `count` groups [a, b) whose sizes differ by one at most."""
    edges = [first + (end - first) * i // count for i in range(count + 1)]
    return list(itertools.pairwise(edges))
