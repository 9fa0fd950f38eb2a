"""`closed_form`: a trained block starts from the best down projection that its own hidden features allow.

The block's output is linear in its last down projection, h' = rest + F V with F what goes into it, so that the
correction of V with the lowest mean squared error against h_{i+n} is a ridge regression of what is still wrong on F
(`least_squares`). What is in front of the down projection stays as it was inherited or drawn.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from app.core.architectures import Family
from worker.engine.errors import EngineError
from worker.engine.recipe import Kind
from worker.engine.replacements.least_squares import NormalEquations, Solution
from worker.engine.replacements.linear_merged import added_share
from worker.engine.stand_ins import hidden_of
from worker.engine.training import Arguments, Pairs


def down_projection(kind: Kind, block: nn.Module, family: Family) -> nn.Module:
    """Return the projection that is fitted: the block's only one, or that of the last of several layers."""
    last = block[-1] if isinstance(block, nn.ModuleList) else block
    assert isinstance(last, nn.Module)
    return last.get_submodule("down_proj" if kind == "ffn" else family.mlp_down)


@torch.no_grad()
def refit(block: nn.Module, down: nn.Module, pairs: Pairs, arguments: Arguments, batch_size: int) -> Solution:
    """Fit `down` in place, and return how its correction was found.

    Args:
        block: float32 weights; maps h [batch, sequence, hidden] to h'.
        down: its last projection.
        pairs: fitted on those to train on, the ridge chosen on those held out.
        arguments: see `worker.engine.training.Arguments`.
        batch_size: sequences at a time.

    Raises:
        EngineError: `replacement_refused` where the projection's output is not added to the residual stream as it is.
    """
    block.eval()
    one, _ = pairs.states.batch([pairs.train[0]])
    share = added_share(lambda: hidden_of(block(one, **arguments(1))), down)
    if share is None:
        raise EngineError(
            "replacement_refused",
            "closed_form cannot fit this block: its down projection's output is not added to the residual stream as it "
            "is; use replacement.init best",
        )
    equations = NormalEquations()
    for sums, rows in ((equations.fitted, pairs.train), (equations.held_out, pairs.held_out)):
        for begin in range(0, len(rows), batch_size):
            before, after = pairs.states.batch(list(rows[begin : begin + batch_size]))
            with _inputs(down) as inputs:
                wrong = after - hidden_of(block(before, **arguments(len(before))))
            features = inputs[0].reshape(*wrong.shape[:2], -1)
            if getattr(down, "bias", None) is not None:
                features = torch.cat([features, torch.ones_like(features[..., :1])], dim=-1)
            sums.add(features * share, wrong)
    solution = equations.solve()
    weight = down.get_parameter("weight")
    correction = solution.correction[: weight.shape[0 if isinstance(down, Conv1D) else 1]].to(weight.dtype)
    weight.add_(correction if isinstance(down, Conv1D) else correction.mT)
    if getattr(down, "bias", None) is not None:
        down.get_parameter("bias").add_(solution.correction[-1].to(weight.dtype))
    return solution


@contextmanager
def _inputs(module: nn.Module) -> Iterator[list[Tensor]]:
    """Collect what a module is given while the context lasts."""
    kept: list[Tensor] = []
    handle = module.register_forward_pre_hook(lambda _, args: kept.append(args[0]))
    try:
        yield kept
    finally:
        handle.remove()
