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

_TOKENS_PER_SUM = 256  # sums of this many tokens are taken in float32, the sums of those in float64
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
        squares = gram.diagonal(dim1=-2, dim2=-1)
        tokens = torch.full((len(input_ids),), input_ids.shape[1], dtype=torch.float64)
        if attention_mask is None:
            _check(squares.flatten(0, 1))
            values = self._values(gram)
        else:
            mask = attention_mask.to(decoder.device, torch.bool)
            _check(squares[mask])
            tokens = mask.sum(1).double().cpu()
            values = self._values(gram).masked_fill(~mask[..., None, None], 0)
        total = sum((part.sum(1).double() for part in torch.split(values, _TOKENS_PER_SUM, dim=1)), torch.zeros(()))
        return total.cpu() / tokens.clamp_min(1)[:, None, None], tokens

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
