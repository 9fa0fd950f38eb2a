"""`mse`: the mean squared error of the hidden state behind the window."""

from __future__ import annotations

from torch import Tensor, nn

from worker.engine.losses.objective import Batch


class MeanSquaredError:
    """Mean over tokens and hidden dimensions."""

    def __call__(self, made: Tensor, batch: Batch) -> Tensor:
        """Return the mean of (made - h_end)^2."""
        return nn.functional.mse_loss(made.float(), batch.after)
