"""`linear_residual`: h + h P, one linear map fitted in closed form (ReplaceMe, arXiv 2505.02819, section 3).

With X = h_i and Y = h_{i+n}: W = I + (X'X + aI)^-1 X'(Y - X), of which P = W - I is kept, so that a half format rounds
the small correction and not the identity beside it. The sums are collected in float64 while the data stream by; nothing
is stored and nothing is trained. State dict name: ``proj.weight``, P' as a linear layer has it.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from app.core.architectures import hidden_size
from worker.engine.decoder import Decoder
from worker.engine.replacements.least_squares import NormalEquations, Solution, collect, held_out_rows
from worker.engine.replacements.starts import Start, zero

Progress = Callable[[int, int], None]


class LinearResidual(nn.Module):
    """The residual map: [batch, sequence, hidden] -> the same."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.proj = nn.Linear(hidden, hidden, bias=False)

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Return h + h P."""
        update: Tensor = self.proj(hidden_states)
        return hidden_states + update


def build(start: Start) -> nn.Module:
    """Return the block with P = 0, which is the plain cut; `fit` gives the one to use."""
    decoder = start.decoder
    block = LinearResidual(hidden_size(decoder.config)).to(decoder.device, decoder.dtype)
    zero(block.proj)
    return block.requires_grad_(False)


def fit(
    decoder: Decoder, windows: Tensor, start: int, end: int, batch_size: int, progress: Progress | None = None
) -> tuple[nn.Module, Solution]:
    """Fit the map to what the layers [start, end) do, in one pass through the layers 0..end-1.

    Args:
        decoder: the dense model.
        windows: token ids [sequences, length].
        start: X is the input of this layer.
        end: Y is the output of the layer before this one.
        batch_size: sequences at a time.
        progress: told (done, total) sequences.

    Returns:
        the block, float32 on the decoder's device, and how it was found.

    Raises:
        EngineError: `not_finite` where a hidden state is NaN or infinite.
    """
    equations, held_out, done = NormalEquations(), held_out_rows(len(windows)), 0
    for batch in torch.split(windows, batch_size):
        seen: dict[int, Tensor] = {}
        decoder.visit(batch, seen.__setitem__, at={start, end})
        wrong = seen[end].double() - seen[start].double()
        collect(equations, seen[start], wrong, held_out[done : done + len(batch)], alone=len(windows) == 1)
        done += len(batch)
        if progress:
            progress(done, len(windows))
    solution = equations.solve()
    block = LinearResidual(len(solution.correction)).to(decoder.device)
    with torch.no_grad():
        block.proj.weight.copy_(solution.correction.T)
    return block.requires_grad_(False), solution
