"""`cosine`: one minus the cosine to the dense model's hidden state.

Blind to the norm: what follows first is a norm in every pre-norm model, but the residual stream keeps its length, so
that later layers weigh wrongly against it. Kept because it is the metric that the window is chosen by.
"""

from __future__ import annotations

from torch import Tensor, nn

from worker.engine.losses.objective import Batch


class CosineDistance:
    """Mean over tokens of 1 - cos(made, h_end)."""

    def __call__(self, made: Tensor, batch: Batch) -> Tensor:
        """Return the mean distance, in [0, 2]."""
        return 1 - nn.functional.cosine_similarity(made.float(), batch.after, dim=-1).mean()
