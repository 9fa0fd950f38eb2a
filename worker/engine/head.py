"""The language-model head as its family computes it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

Head = Callable[[Tensor], Tensor]
"""Hidden states [..., hidden] behind the final norm -> logits [..., vocabulary]."""


def head_of(model: nn.Module) -> Head:
    """Return the head of a transformers model: some families scale (Cohere, Granite) or bend (Gemma 2) its logits."""
    linear: Any = model.get_output_embeddings()  # type: ignore[operator]
    config: Any = model.config

    def head(hidden: Tensor) -> Tensor:
        logits: Tensor = linear(hidden)
        if scale := getattr(config, "logit_scale", None):
            logits = logits * scale
        if scaling := getattr(config, "logits_scaling", None):
            logits = logits / scaling
        if cap := getattr(config, "final_logit_softcapping", None):
            logits = torch.tanh(logits / cap) * cap
        return logits

    return head
