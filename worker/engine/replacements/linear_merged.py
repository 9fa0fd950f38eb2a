"""`linear_merged`: the map is folded into the layer in front of the window (ReplaceMe, arXiv 2505.02819, section 3).

That layer ends with h_i = A + M, M the output of its MLP. T minimises |M T - (Y - (h_i - M))|^2 + a |T - I|^2 with
Y = h_{i+n}, so that T = I + (M'M + aI)^-1 M'(Y - h_i), and the plain cut is T = I. A linear layer gives M = X W' + b,
so M T = X (T'W)' + bT: the layer gets the down projection T'W and the bias bT, and the checkpoint keeps a stock
architecture without one parameter more.

Exact wherever M is added to the residual stream as it is. That holds for sequential pre-norm layers and for parallel
ones (GPT-NeoX: h + attention + MLP, in which T acts on the MLP's summand alone), and it is tried on the model itself
before anything is fitted. State dict names are relative to the layer (``mlp.down_proj.weight``, ...).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from worker.engine.errors import EngineError
from worker.engine.hidden_states import LayeredModel
from worker.engine.replacements.least_squares import NormalEquations, Solution, collect, held_out_rows
from worker.engine.replacements.linear_residual import Progress
from worker.engine.replacements.starts import Start
from worker.engine.stand_ins import hidden_of

_ROUNDING = {torch.float32: 1e-3, torch.float16: 1e-2, torch.bfloat16: 5e-2}  # share of what is compared


def build(start: Start) -> nn.Module:
    """Return a copy of the layer in front of the window, which stands for itself and the window."""
    return start.decoder.layer(start.first - 1).requires_grad_(False)


def fit(
    model: LayeredModel, windows: Tensor, start: int, end: int, batch_size: int, progress: Progress | None = None
) -> tuple[dict[str, Tensor], Solution]:
    """Fit T in one pass through the layers 0..end-1, and fold it; the layer in front of the window runs twice.

    Args:
        model: the dense model.
        windows: token ids [sequences, length].
        start: first layer of the window, at least 1.
        end: the layer after its last one.
        batch_size: sequences at a time.
        progress: told (done, total) sequences.

    Returns:
        the tensors that layer `start` - 1 gets, float64, and how T - I was found.

    Raises:
        EngineError: `replacement_refused` where the MLP's output is not added to the residual stream as it is;
            `not_finite` where a hidden state is NaN or infinite.
    """
    layer = model.layer(start - 1)
    down = layer.get_submodule(model.family.mlp_down)
    sizes = {len(batch) for batch in torch.split(windows, batch_size)}
    arguments = {size: model.layer_arguments(start - 1, size, windows.shape[1]) for size in sizes}
    equations, held_out, alone = NormalEquations(), held_out_rows(len(windows)), len(windows) == 1
    outputs: dict[int, tuple[Tensor, Tensor]] = {}
    shares: list[float] = []

    def visit(first: int, index: int, state: Tensor) -> None:
        def run() -> Tensor:
            return hidden_of(layer(state, **arguments[len(state)]))

        if index == start - 1:
            if not shares:
                shares.append(_share(run, down, start - 1))
            with _outputs(down) as seen:
                h = run()
            # Some families run the MLP on [tokens, hidden].
            outputs[first] = h, seen[0].view(h.shape)
            return
        (h, M), rows = outputs.pop(first), slice(first, first + len(state))
        collect(equations, M.double() * shares[0], state.double() - h.double(), held_out[rows], alone=alone)
        if progress:
            progress(rows.stop, len(windows))

    model.visit_windows(windows, batch_size, visit, at={start - 1, end}, together=True)
    solution = equations.solve()
    T = torch.eye(len(solution.correction), dtype=torch.float64, device=solution.correction.device)
    return folded(model.family.mlp_down, down, T + solution.correction), solution


def _share(run: Callable[[], Tensor], down: nn.Module, layer: int) -> float:
    share = added_share(run, down)
    if share is None:
        raise EngineError(
            "replacement_refused",
            f"linear_merged cannot be folded into layer {layer}: its MLP's output is not added to the residual stream "
            "as it is; use replacement.kind linear_residual",
        )
    return share


def folded(name: str, down: nn.Module, T: Tensor) -> dict[str, Tensor]:
    """Return weight and bias of the down projection called `name` followed by T [hidden, hidden], float64."""
    W = down.get_parameter("weight").double()
    # GPT-2 keeps its weights as [inputs, outputs].
    tensors = {f"{name}.weight": W @ T if isinstance(down, Conv1D) else T.mT @ W}
    if (bias := getattr(down, "bias", None)) is not None:
        tensors[f"{name}.bias"] = bias.double() @ T
    return tensors


@torch.no_grad()
def added_share(run: Callable[[], Tensor], down: nn.Module) -> float | None:
    """Return what the output of the projection `down` is multiplied by when it is added to the stream.

    That is 1 but for families that scale their branches (Granite). None where the output goes another way, such as
    through a norm. Tried out: noise of the size of the stream is added to the output, and the stream must follow.

    Args:
        run: computes the stream behind the projection, [batch, sequence, hidden].
        down: the projection.
    """
    with _outputs(down) as outputs:
        before = run().double()
    # Tokens differ in size: a norm behind the projection would make them alike.
    noise = torch.randn(before.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    noise *= torch.linspace(0.5, 1.5, noise[..., 0].numel(), dtype=torch.float64).view(*before.shape[:-1], 1)
    N = noise.to(before.device) * (before.norm() / noise.norm())
    disturbed = down.register_forward_hook(lambda _, __, output: output + N.view(output.shape).to(output.dtype))
    try:
        added = run().double() - before
    finally:
        disturbed.remove()
    share = float((added * N).sum() / N.square().sum())
    tolerance = _ROUNDING[outputs[0].dtype]
    if not (abs(share) > tolerance and float((added - share * N).norm()) <= tolerance * float(added.norm())):
        return None
    # One up to rounding is one, so that no rounding gets into the fit.
    return 1.0 if abs(share - 1) < tolerance else share


@contextmanager
def _outputs(module: nn.Module) -> Iterator[list[Tensor]]:
    """Collect what a module returns while the context lasts."""
    kept: list[Tensor] = []
    handle = module.register_forward_hook(lambda _, __, output: kept.append(output))
    try:
        yield kept
    finally:
        handle.remove()
