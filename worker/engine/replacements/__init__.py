"""What takes the place of the pruned layers; one file per kind, each with the same `build`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from torch import nn

from worker.engine.recipe import Kind
from worker.engine.replacements import ffn, layer, linear_merged, linear_residual, none, swiglu
from worker.engine.replacements.starts import Start

BUILDERS: Mapping[Kind, Callable[[Start], nn.Module | None]] = MappingProxyType(
    {
        "none": none.build,
        "ffn": ffn.build,
        "swiglu": swiglu.build,
        "layer": layer.build,
        "linear_merged": linear_merged.build,
        "linear_residual": linear_residual.build,
    }
)


def build(kind: Kind, start: Start) -> nn.Module | None:
    """Return the untrained block for a window, in the decoder's dtype and on its device; None for `none`.

    It maps h [batch, sequence, hidden] to h' of the same shape. A `layer` also takes what a decoder layer is given
    beside the hidden states (see `Decoder.layer_arguments`), several layers a list of that, called ``per_layer``.
    """
    return BUILDERS[kind](start)


def stands_for(kind: Kind, start: int, end: int) -> tuple[int, int]:
    """Return the layers [first, end) that the built block stands for: the window, or one more with `linear_merged`."""
    return (start - 1 if kind == "linear_merged" else start), end
