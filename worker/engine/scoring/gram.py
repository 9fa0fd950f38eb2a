"""One pass for all windows: the Gram matrix of a token's hidden states holds their norms and inner products.

With the L+1 hidden states of one token as the rows of H [L+1, hidden], G = H H' [L+1, L+1] has <h_i, h_j> at [i, j].
Cosine, angle, distance and inner product of every pair of layers follow from it, beside one plain forward pass.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from app.core.architectures import hidden_size
from worker.engine.decoder import Decoder
from worker.engine.errors import EngineError
from worker.engine.scoring.metric import Candidates

Values = Callable[[Tensor], Tensor]
"""Gram matrices [..., L+1, L+1] float32 -> the metric's value for every pair of layers, of the same shape."""

_TINY = torch.finfo(torch.float32).tiny


class GramScorer:
    """Means over a sequence's tokens of what a metric makes of their Gram matrices; see `Scorer`."""

    def __init__(self, decoder: Decoder, values: Values) -> None:
        self._decoder = decoder
        self._values = values
        self._states: Tensor | None = None

    def add(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Run all layers on a batch; see `Scorer.add`.

        Raises:
            EngineError: `not_finite`, naming the layer, where a hidden state has NaN or infinite numbers.
        """
        decoder = self._decoder
        states = self._buffer((*input_ids.shape, len(decoder.layers) + 1, hidden_size(decoder.config)), decoder.device)

        def visit(row: int, state: Tensor) -> None:
            states[:, :, row] = state

        decoder.visit(input_ids, visit, attention_mask=attention_mask)
        gram = states @ states.mT
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        mask = mask.to(decoder.device, torch.float64)
        _check(gram.diagonal(dim1=-2, dim2=-1)[mask.bool()])
        tokens = mask.sum(1)
        total = torch.einsum("btij,bt->bij", self._values(gram).double(), mask)
        return (total / tokens.clamp_min(1)[:, None, None]).cpu(), tokens.cpu()

    def _buffer(self, shape: tuple[int, ...], device: torch.device) -> Tensor:
        """Return room for H [batch, tokens, L+1, hidden], the same memory for every full batch."""
        if self._states is None or self._states.shape != shape:
            self._states = torch.empty(shape, dtype=torch.float32, device=device)
        return self._states


def scorer_of(values: Values) -> Callable[[Decoder, Candidates | None], GramScorer]:
    """Return how to set a metric of the Gram matrix to work."""
    return lambda decoder, _: GramScorer(decoder, values)


def cosines(gram: Tensor) -> Tensor:
    """Return the cosines of Gram matrices [..., L+1, L+1]; those of a zero state are zero."""
    norms = gram.diagonal(dim1=-2, dim2=-1).clamp_min(_TINY).sqrt()
    return gram / norms[..., :, None] / norms[..., None, :]


def _check(squares: Tensor) -> None:
    """Refuse squared norms [tokens, L+1] that are no numbers."""
    finite = torch.isfinite(squares).all(0)
    if not finite.all():
        raise EngineError(
            "not_finite",
            f"the hidden state before layer {int((~finite).nonzero()[0])} is NaN or infinite; the checkpoint is broken "
            "or overflows in its number format",
        )
