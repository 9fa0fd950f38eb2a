"""One pass for all windows: the Gram matrix of a token's hidden states holds their norms and inner products.

With the L+1 hidden states of one token as the rows of H [L+1, hidden], G = H H' [L+1, L+1] has <h_i, h_j> at [i, j].
Cosine, angle, distance and inner product of every pair of layers follow from it, beside one plain forward pass.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from worker.engine.errors import EngineError
from worker.engine.hidden_states import LayeredModel
from worker.engine.scoring.metric import Candidates

Values = Callable[[Tensor], Tensor]
"""Gram matrices [..., L+1, L+1] float32 -> the metric's value for every pair of layers, of the same shape."""

_TOKENS_PER_SUM = 256  # sums of this many tokens are taken in float32, the sums of those in float64
_TINY = torch.finfo(torch.float32).tiny


class GramScorer:
    """Means over a sequence's tokens of what a metric makes of their Gram matrices; see `Scorer`."""

    def __init__(self, model: LayeredModel, values: Values) -> None:
        self._model = model
        self._values = values
        self._states: Tensor | None = None

    def add(self, windows: Tensor, batch_size: int, done: Callable[[int], None]) -> tuple[Tensor, Tensor]:
        """Run all layers on the sequences; see `Scorer.add`.

        A streamed model puts all L + 1 states aside until its last layer has run; see `worker.engine.streamed`.

        Raises:
            EngineError: `not_finite`, naming the layer, where a hidden state has NaN or infinite numbers.
        """
        rows = self._model.layer_count + 1
        scores = torch.empty((len(windows), rows, rows), dtype=torch.float64)

        def visit(first: int, row: int, state: Tensor) -> None:
            batch, length, hidden = state.shape
            states = self._buffer((batch, length, rows, hidden), state.device)
            states[:, :, row] = state
            if row == rows - 1:
                scores[first : first + batch] = self._of_batch(states)
                done(first + batch)

        self._model.visit_windows(windows, batch_size, visit, together=True)
        return scores, torch.full((len(windows),), windows.shape[1], dtype=torch.float64)

    def _of_batch(self, states: Tensor) -> Tensor:
        # The model may compute in bfloat16; what its states are compared by may not: windows differ by less than that.
        with torch.autocast(states.device.type, enabled=False):
            gram = states @ states.mT
            _check(gram.diagonal(dim1=-2, dim2=-1).flatten(0, 1))
            parts = torch.split(self._values(gram), _TOKENS_PER_SUM, dim=1)
            return torch.stack([part.sum(1).double() for part in parts]).sum(0).cpu() / states.shape[1]

    def _buffer(self, shape: tuple[int, ...], device: torch.device) -> Tensor:
        """Return room for H [batch, tokens, L+1, hidden], the same memory for every full batch."""
        if self._states is None or self._states.shape != shape:
            self._states = torch.empty(shape, dtype=torch.float32, device=device)
        return self._states


def scorer_of(values: Values) -> Callable[[LayeredModel, Candidates | None], GramScorer]:
    """Return how to set a metric of the Gram matrix to work."""
    return lambda model, _: GramScorer(model, values)


def cosines(gram: Tensor) -> Tensor:
    """Return the cosines of Gram matrices [..., L+1, L+1]; those of a zero state are zero."""
    scale = gram.diagonal(dim1=-2, dim2=-1).clamp_min(_TINY).rsqrt()
    return (gram * scale[..., :, None]).mul_(scale[..., None, :])


def _check(squares: Tensor) -> None:
    """Refuse squared norms [tokens, L+1] that are no numbers."""
    finite = torch.isfinite(squares).all(0)
    if not finite.all():
        raise EngineError(
            "not_finite",
            f"the hidden state before layer {int((~finite).nonzero()[0])} is NaN or infinite; the checkpoint is broken "
            "or overflows in its number format",
        )
