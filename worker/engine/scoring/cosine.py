"""Mean cosine between the states before and after every window of every size, in one pass.

LLM-Streamline (arXiv 2403.19135), section 3.1: score(i, n) = mean over tokens of cos(h_i, h_{i+n}). With
u_l = h_l / |h_l| laid out as one row per layer, U [L+1, tokens x hidden], the product U U' divided by the number of
tokens holds all mean cosines of a sequence at once: one small matrix product beside the forward pass.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from worker.engine.decoder import Decoder
from worker.engine.errors import EngineError
from worker.engine.hidden_states import LayeredModel

METRIC = "cosine"
_TOKENS_PER_PRODUCT = 256  # sums of this many tokens are taken in float32, the sums of those in float64
_TINY = torch.finfo(torch.float32).tiny


class CosineTable:
    """Collects per-sequence tables; `mean` is the score table.

    `sequences` holds one [L+1, L+1] float64 matrix of mean cosines per sequence, so that a bootstrap over sequences
    needs no second pass.
    """

    def __init__(self) -> None:
        self.sequences: list[Tensor] = []
        self.tokens: list[int] = []
        self._unit: Tensor | None = None

    def add(self, decoder: Decoder, input_ids: Tensor, attention_mask: Tensor | None = None) -> None:
        """Run the layers on a batch and add its sequences.

        Args:
            decoder: the dense model.
            input_ids: [batch, sequence].
            attention_mask: [batch, sequence]; padding (0) never counts.

        Raises:
            EngineError: as `put`.
        """
        last = decoder.layer_count
        decoder.visit(
            input_ids,
            lambda row, state: self.put(row, last, state, attention_mask),
            attention_mask=attention_mask,
        )

    def put(self, row: int, last: int, state: Tensor, attention_mask: Tensor | None = None) -> None:
        """Take in h_row of a batch, for row = 0..last in turn; the last one adds the batch's sequences.

        Args:
            row: l of h_l.
            last: L.
            state: h_l [batch, sequence, hidden].
            attention_mask: [batch, sequence]; padding (0) never counts.

        Raises:
            EngineError: `not_finite`, naming the layer, where a hidden state has NaN or infinite numbers.
        """
        batch, length, hidden = state.shape
        unit = self._buffer((batch, last + 1, length, hidden), state.device)
        h = state.float()
        scale = torch.linalg.vector_norm(h, dim=-1, keepdim=True).clamp_min_(_TINY).reciprocal_()
        if attention_mask is not None:
            scale.mul_(attention_mask.to(state.device, torch.float32)[..., None])
        torch.mul(h, scale, out=unit[:, row])
        if row == last:
            self._add_sequences(unit, attention_mask)

    def _add_sequences(self, unit: Tensor, attention_mask: Tensor | None) -> None:
        batch, rows, length, _ = unit.shape
        total = torch.zeros((batch, rows, rows), dtype=torch.float64)
        for part in torch.split(unit, _TOKENS_PER_PRODUCT, dim=2):
            flat = part.flatten(2)
            total += torch.bmm(flat, flat.mT).double().cpu()
        counts = torch.full((batch,), length) if attention_mask is None else attention_mask.sum(1).cpu()
        self._check(total)
        for table, count in zip(total, counts.tolist(), strict=True):
            if count:
                self.sequences.append(table / count)
                self.tokens.append(int(count))

    def _buffer(self, shape: tuple[int, ...], device: torch.device) -> Tensor:
        """Return room for U [batch, L+1, tokens, hidden], the same memory for every full batch."""
        if self._unit is None or self._unit.shape != shape:
            self._unit = torch.empty(shape, dtype=torch.float32, device=device)
        return self._unit

    @staticmethod
    def _check(total: Tensor) -> None:
        if not torch.isfinite(total).all():
            layer = int((~torch.isfinite(total.diagonal(dim1=1, dim2=2))).any(0).nonzero()[0])
            raise EngineError(
                "not_finite",
                f"the hidden state before layer {layer} is NaN or infinite; the checkpoint is broken or overflows "
                "in its number format",
            )

    def mean(self) -> Tensor:
        """Return the mean over all tokens [L+1, L+1], float64, symmetric, ones on the diagonal."""
        weights = torch.tensor(self.tokens, dtype=torch.float64)
        return (torch.stack(self.sequences) * weights[:, None, None]).sum(0) / weights.sum()

    def scores(self) -> list[list[float | None]]:
        """Return ``table[i][n - 1]`` = score of [i, i + n) for i in 0..L-1, n in 1..L; None where i + n > L."""
        mean = self.mean()
        layers = len(mean) - 1
        return [
            [mean[i, i + n].item() if i + n <= layers else None for n in range(1, layers + 1)] for i in range(layers)
        ]


def score_windows(
    decoder: LayeredModel, windows: Tensor, batch_size: int, progress: Callable[[int, int], None] | None = None
) -> CosineTable:
    """Score all windows of layers on token windows [sequences, length]; `progress` is told (done, total) sequences.

    A streamed model puts all L + 1 states aside until its last layer has run; see `worker.engine.streamed`.
    """
    table = CosineTable()
    last = decoder.layer_count

    def visit(first: int, row: int, state: Tensor) -> None:
        table.put(row, last, state)
        if progress and row == last:
            progress(first + len(state), len(windows))

    decoder.visit_windows(windows, batch_size, visit, together=True)
    return table
