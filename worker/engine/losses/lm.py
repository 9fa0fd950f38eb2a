"""`lm`: the language-model loss of the pruned model; only the block is trained."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from worker.engine.losses.objective import Batch, Tail


class NextToken:
    """Mean cross-entropy of each token given those before it, in nats."""

    def __init__(self, tail: Tail) -> None:
        self._tail = tail

    def __call__(self, made: Tensor, batch: Batch) -> Tensor:
        """Return the mean over all predicted tokens."""
        logits = self._tail(made)[:, :-1].float()
        return nn.functional.cross_entropy(logits.flatten(0, 1), batch.input_ids[:, 1:].flatten().to(torch.long))
