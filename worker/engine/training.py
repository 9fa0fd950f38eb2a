"""Training a block on pairs of hidden states: MSE between what it makes of h_start and the dense model's h_end.

Only the block is in the optimiser's hands; the rest of the model is not run. The held-out error decides what is kept:
the best state seen, as a copy, or the untrained start where training never beat it.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from worker.engine.activation_store import ActivationStore
from worker.engine.decoder import hidden_of

Arguments = Callable[[int], dict[str, Any]]
"""Batch size -> what the block is called with beside the hidden states."""

WARMUP_SHARE = 0.05
LEARNING_RATE_FLOOR = 0.05  # of the peak, at the end of the cosine
BETAS = (0.9, 0.95)
WEIGHT_DECAY = 0.01
LARGEST_GRADIENT_NORM = 1.0
HELD_OUT_SHARE = 20  # one sequence in twenty is held out of the training pairs, 64 at most
MOST_HELD_OUT = 64
CHECKS = 10  # held-out checks over the run, the last one after the last step
LOGGED_STEPS = 200


@dataclass(frozen=True)
class Plan:
    """How to train; see `worker.engine.recipe.Replacement`."""

    epochs: int
    learning_rate: float
    batch_size: int
    seed: int


@dataclass
class History:
    """What happened, in the words of training.json."""

    start_mse: float
    best_mse: float
    best_step: int = 0
    steps: list[dict[str, float]] = field(default_factory=list)
    held_out: list[dict[str, float]] = field(default_factory=list)
    seconds: float = 0.0
    diverged: bool = False

    @property
    def kept(self) -> str:
        """`trained`, or `start` where training did not beat the untrained block."""
        return "trained" if self.best_step else "start"


@dataclass(frozen=True)
class Pairs:
    """The store, split: which sequences are trained on and which only judged by."""

    store: ActivationStore
    train: tuple[int, ...]
    held_out: tuple[int, ...]

    @classmethod
    def split(cls, store: ActivationStore) -> Pairs:
        """Hold out every twentieth sequence (at least one, at most 64); a single sequence serves as both."""
        count = len(store)
        held_count = min(MOST_HELD_OUT, max(1, count // HELD_OUT_SHARE))
        stride = max(1, count // held_count)
        held = tuple(range(stride - 1, count, stride))[:held_count]
        rest = tuple(sorted(set(range(count)) - set(held)))
        return cls(store, rest or held, held)

    @torch.no_grad()
    def error(self, block: nn.Module | None, arguments: Arguments, batch_size: int) -> float:
        """Return the block's mean squared error on the held-out pairs, in float64; None is the plain cut."""
        total, numbers = 0.0, 0
        for begin in range(0, len(self.held_out), batch_size):
            before, after = self.store.batch(list(self.held_out[begin : begin + batch_size]))
            with _autocast(before):
                made = before if block is None else hidden_of(block(before, **arguments(len(before))))
            total += float((made.float() - after).square().sum(dtype=torch.float64))
            numbers += after.numel()
        return total / numbers


def _autocast(sample: Tensor) -> Any:
    return torch.autocast("cuda", torch.bfloat16) if sample.is_cuda else nullcontext()


def learning_rate_at(step: int, steps: int, peak: float) -> float:
    """Return the learning rate of a step (from 0): linear warm-up, then a cosine down to the floor."""
    warmup = max(1, round(steps * WARMUP_SHARE))
    if step < warmup:
        return peak * (step + 1) / warmup
    done = (step - warmup) / max(1, steps - warmup)
    return peak * (LEARNING_RATE_FLOOR + (1 - LEARNING_RATE_FLOOR) * (1 + math.cos(math.pi * done)) / 2)


def make_optimizer(block: nn.Module, learning_rate: float) -> torch.optim.AdamW:
    """Return AdamW over the block, one fused kernel per step; norms and biases do not decay."""
    matrices = [p for p in block.parameters() if p.ndim > 1]
    vectors = [p for p in block.parameters() if p.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": WEIGHT_DECAY}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=learning_rate, betas=BETAS, fused=True)


def train_step(
    block: nn.Module,
    optimizer: torch.optim.Optimizer,
    pair: tuple[Tensor, Tensor],
    arguments: dict[str, Any],
    scale: float,
) -> Tensor:
    """Take one step and return the batch's mean squared error, a scalar on the device (reading it waits for the GPU).

    Args:
        block: float32 weights with gradients on.
        optimizer: over the block's parameters.
        pair: (h_start, h_end), each [batch, sequence, hidden], float32.
        arguments: what the block is called with beside h_start.
        scale: 1 / mean square of (h_end - h_start), so that one clipping bound suits models of any norm.
    """
    before, after = pair
    with _autocast(before):
        made = hidden_of(block(before, **arguments))
    mse = nn.functional.mse_loss(made.float(), after)
    (mse * scale).backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(block.parameters(), LARGEST_GRADIENT_NORM)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return mse.detach()


def fit(
    block: nn.Module,
    pairs: Pairs,
    arguments: Arguments,
    plan: Plan,
    report: Callable[[int, int, dict[str, float]], None] | None = None,
) -> History:
    """Train a block in place; afterwards it holds the best state seen on the held-out pairs, or its start.

    A loss or held-out error that is not finite ends training early; it is in no history, which says `diverged`.
    Same seed, same data and same device give the same bytes on CPU.

    Args:
        block: float32 weights; maps h [batch, sequence, hidden] to h'.
        pairs: the data, split.
        arguments: see `Arguments`.
        plan: epochs, peak learning rate, sequences per batch, seed of the shuffles.
        report: told (step, steps, values) about ten times a second at most by its own choice.
    """
    began = time.monotonic()
    block.eval().requires_grad_(True)  # evaluation mode: no dropout, the target is deterministic
    start = pairs.error(block, arguments, plan.batch_size)
    history = History(start_mse=start, best_mse=start if math.isfinite(start) else math.inf)
    if math.isfinite(start):
        history.held_out.append({"step": 0, "mse": start})
    best = copy.deepcopy(block.state_dict())
    cut = pairs.error(None, arguments, plan.batch_size)
    scale = 1 / max(cut, torch.finfo(torch.float32).tiny)
    optimizer = make_optimizer(block, plan.learning_rate)
    per_epoch = math.ceil(len(pairs.train) / plan.batch_size)
    steps = plan.epochs * per_epoch
    check_at = {math.ceil(steps * (check + 1) / CHECKS) for check in range(CHECKS)}
    log_every = max(1, steps // LOGGED_STEPS)
    generator = torch.Generator().manual_seed(plan.seed)
    step = tokens = 0
    for _ in range(plan.epochs):
        order = torch.randperm(len(pairs.train), generator=generator).tolist()
        for begin in range(0, len(order), plan.batch_size):
            rate = learning_rate_at(step, steps, plan.learning_rate)
            for group in optimizer.param_groups:
                group["lr"] = rate
            pair = pairs.store.batch([pairs.train[i] for i in order[begin : begin + plan.batch_size]])
            mse = train_step(block, optimizer, pair, arguments(len(pair[0])), scale)
            step, tokens = step + 1, tokens + pair[0].shape[0] * pair[0].shape[1]
            if step % log_every == 0 or step == steps:
                loss = mse.item()
                # Before anything is noted: the best state so far is kept, and no file or event holds a NaN.
                if not math.isfinite(loss):
                    history.diverged = True
                    break
                values = {"step": step, "tokens": tokens, "loss": loss, "learning_rate": rate}
                history.steps.append(values)
                if report:
                    report(step, steps, values)
            if step in check_at:
                error = pairs.error(block, arguments, plan.batch_size)
                if not math.isfinite(error):
                    history.diverged = True
                    break
                history.held_out.append({"step": step, "mse": error})
                if error < history.best_mse:
                    history.best_mse, history.best_step = error, step
                    best = copy.deepcopy(block.state_dict())
        if history.diverged:
            break
    block.load_state_dict(best)
    block.requires_grad_(False)
    history.seconds = time.monotonic() - began
    return history
