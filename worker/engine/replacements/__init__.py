"""What takes the place of the pruned layers; one file per kind, each with the same `build`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from torch import nn

from worker.engine.recipe import Kind
from worker.engine.replacements import ffn, layer, none, swiglu
from worker.engine.replacements.starts import Start

BUILDERS: Mapping[Kind, Callable[[Start], nn.Module | None]] = MappingProxyType(
    {"none": none.build, "ffn": ffn.build, "swiglu": swiglu.build, "layer": layer.build}
)


def build(kind: Kind, start: Start) -> nn.Module | None:
    """Return the untrained block for a window, in the decoder's dtype and on its device; None for `none`.

    It maps h [batch, sequence, hidden] to h' of the same shape. Only a `layer` also takes what a decoder layer is given
    beside the hidden states (see `Decoder.layer_arguments`).
    """
    return BUILDERS[kind](start)
