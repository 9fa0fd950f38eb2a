"""How far the pruned model's next-token distributions are from the dense model's, on text that neither was fitted on.

What the dense model's head is applied to is put aside for the first few thousand tokens, because the two models need
not be in memory together. The pruned model has the same final norm and head, byte for byte where the dtype is the same,
so that its head makes both distributions of it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from worker.engine.events import finite
from worker.engine.head import Head

TOKENS = 4096
"""Positions that are compared at most: their states take tokens x hidden numbers."""

_LOGIT_BYTES = 64 << 20  # float32 logits of each model that exist at one time


class NextToken:
    """The comparison on one text."""

    def __init__(self, windows: Tensor, states: Tensor | None = None) -> None:
        """Take the windows [count, length]; `states` are those of an earlier run, as `keep` leaves them."""
        self._count = min(len(windows), max(1, TOKENS // windows.shape[1]))
        self._length = windows.shape[1]
        self.states = states
        """What the dense model's head is applied to [compared windows, length, hidden], on CPU."""
        # By window, so that a pass that begins anew overwrites what the one before has left.
        self._divergence = torch.zeros(self._count, dtype=torch.float64)
        self._same = torch.zeros(self._count, dtype=torch.float64)

    def keep(self, first: int, hidden: Tensor) -> None:
        """Put aside what is wanted of a batch of the dense model [batch, length, hidden] from window `first` on."""
        rows = hidden[: max(0, self._count - first)]
        if len(rows):
            if self.states is None:
                self.states = torch.empty(self._count, *rows.shape[1:], dtype=rows.dtype)
            self.states[first : first + len(rows)] = rows.cpu()

    def compare(self, head: Head, first: int, hidden: Tensor) -> None:
        """Hold a batch of the pruned model [batch, length, hidden] from window `first` on against what was kept."""
        assert self.states is not None, "the dense model goes first"
        for row in range(first, min(first + len(hidden), self._count)):
            dense = self.states[row].to(hidden)
            pruned = hidden[row - first]
            step = max(1, _LOGIT_BYTES // (4 * head(pruned[:1]).shape[-1]))
            total, same = 0.0, 0
            for start in range(0, self._length, step):
                p = head(dense[start : start + step]).float().log_softmax(-1)
                q = head(pruned[start : start + step]).float().log_softmax(-1)
                total += float((p.exp() * (p - q)).sum(-1).double().sum())
                same += int((p.argmax(-1) == q.argmax(-1)).sum())
            self._divergence[row], self._same[row] = total, same

    def to_json(self) -> dict[str, float | int | None]:
        """Return the mean KL(dense || pruned) in nats, the share of equal likeliest tokens, and the tokens compared."""
        tokens = self._count * self._length
        return {
            "kl": finite(float(self._divergence.sum()) / tokens),
            "same_top": float(self._same.sum()) / tokens,
            "tokens": tokens,
        }
