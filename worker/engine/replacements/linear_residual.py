"""`linear_residual`: h + h P, one linear map fitted in closed form (ReplaceMe, arXiv 2505.02819, section 3).

With X = h_i and Y = h_{i+n}: W = I + (X'X + aI)^-1 X'(Y - X), of which P = W - I is kept, so that a half format rounds
the small correction and not the identity beside it. The sums are collected in float64 while the data stream by; nothing
is stored and nothing is trained. State dict name: ``proj.weight``, P' as a linear layer has it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from app.core.architectures import hidden_size
from worker.engine.hidden_states import LayeredModel
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
    model: LayeredModel, windows: Tensor, start: int, end: int, batch_size: int, progress: Progress | None = None
) -> tuple[dict[str, Tensor], Solution]:
    """Fit the map to what the layers [start, end) do, in one pass through the layers 0..end-1.

    Args:
        model: the dense model.
        windows: token ids [sequences, length].
        start: X is the input of this layer.
        end: Y is the output of the layer before this one.
        batch_size: sequences at a time.
        progress: told (done, total) sequences.

    Returns:
        the block's tensors, float64, and how they were found.

    Raises:
        EngineError: `not_finite` where a hidden state is NaN or infinite.
    """
    equations, held_out, alone = NormalEquations(), held_out_rows(len(windows)), len(windows) == 1
    before: dict[int, Tensor] = {}

    def visit(first: int, layer: int, state: Tensor) -> None:
        if layer == start:
            before[first] = state
            return
        X, rows = before.pop(first), slice(first, first + len(state))
        collect(equations, X, state.double() - X.double(), held_out[rows], alone=alone)
        if progress:
            progress(rows.stop, len(windows))

    model.visit_windows(windows, batch_size, visit, at={start, end}, together=True)
    solution = equations.solve()
    return {"proj.weight": solution.correction.mT}, solution


def block_of(tensors: Mapping[str, Tensor], device: torch.device, dtype: torch.dtype) -> nn.Module:
    """Return the block with fitted tensors in it."""
    block = LinearResidual(len(tensors["proj.weight"]))
    block.load_state_dict(tensors)
    return block.to(device, dtype).requires_grad_(False)
