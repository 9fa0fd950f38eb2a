"""`layer`: one decoder layer of the model's own class (LLM-Streamline, arXiv 2403.19135, section 3.2).

The state dict has the layer's own names, so the checkpoint keeps a stock architecture.
"""

from __future__ import annotations

from torch import nn

from worker.engine.replacements.starts import Start, inherit


def build(start: Start) -> nn.Module:
    """Return a decoder layer with inherited weights; see `worker.engine.replacements.build`."""
    return inherit(start, lambda layer: layer)
