"""The protocol of a loss, and what one is given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

Tail = Callable[[Tensor], Tensor]
"""The layers behind the window, the final norm and the head: h_end [batch, sequence, hidden] -> logits
[batch, sequence, vocabulary], with a gradient with respect to h_end."""


@dataclass(frozen=True)
class Batch:
    """Some training sequences: `before` and `after` the window [batch, sequence, hidden] float32, `input_ids`
    [batch, sequence]."""

    before: Tensor
    after: Tensor
    input_ids: Tensor

    def __len__(self) -> int:
        return len(self.input_ids)


class Objective(Protocol):
    """A loss. Calling it returns the batch's mean, a scalar: lower is better, and 0 means the dense model's own."""

    def __call__(self, made: Tensor, batch: Batch) -> Tensor:
        """Return the loss of what the block made [batch, sequence, hidden] of `batch.before`."""
        ...
