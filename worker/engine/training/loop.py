"""Training a block on pairs of hidden states, or adapters on tokens; what is held out decides what is kept.

Only the block is in the optimiser's hands. The best state seen is kept, as a copy, or the untrained start where
training never beat it.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from typing import TypeVar

import torch
from torch import Tensor, nn

from worker.engine.device import autocast, is_out_of_memory
from worker.engine.errors import EngineError
from worker.engine.losses import Batch, MeanSquaredError, Objective
from worker.engine.stand_ins import hidden_of
from worker.engine.training.group import ALONE, Group
from worker.engine.training.pairs import Arguments, Examples
from worker.engine.training.state import Keeper
from worker.engine.transfers import DeviceWaits

WARMUP_SHARE = 0.05
LEARNING_RATE_FLOOR = 0.05  # of the peak, at the end of the cosine
BETAS = (0.9, 0.95)
WEIGHT_DECAY = 0.01
LARGEST_GRADIENT_NORM = 1.0
CHECKS = 10  # held-out checks over the run, the last one after the last step
PATIENCE = 4  # checks in a row without a new best state, after which a run ends early
LOGGED_STEPS = 200

Report = Callable[[int, int, Mapping[str, float]], None]
"""Told the step, how many there are, and what was measured at it."""

Wanted = TypeVar("Wanted")
Read = TypeVar("Read")


@dataclass(frozen=True)
class Plan:
    """How to train; see `worker.engine.recipe.Replacement`."""

    epochs: int
    learning_rate: float
    batch_size: int
    seed: int


@dataclass
class History:
    """What happened, in the words of training.json. Losses are means over the held-out sequences."""

    start: float
    best: float
    best_step: int = 0
    steps: list[dict[str, float]] = field(default_factory=list)
    held_out: list[dict[str, float]] = field(default_factory=list)
    seconds: float = 0.0
    data_wait_seconds: float = 0.0
    """Time in which the device waited for a batch to be read; computing states anew is work, and no waiting."""
    micro_batch: int = 0
    """Sequences that went through the block at once at the end; fewer than the batch where memory ran out."""
    diverged: bool = False
    stopped_early: bool = False

    @property
    def kept(self) -> str:
        """`trained`, or `start` where training did not beat the untrained block."""
        return "trained" if self.best_step else "start"


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
    batch: Batch,
    arguments: Arguments,
    objective: Objective,
    *,
    scale: float = 1.0,
    micro_batch: int | None = None,
    whole: int | None = None,
    group: Group = ALONE,
) -> Tensor:
    """Take one step and return the batch's mean loss, a scalar on the device (reading it waits for the GPU).

    The gradient is the whole batch's mean, however it is divided and also where a remainder is left.

    Args:
        block: float32 weights with gradients on.
        optimizer: over the block's parameters.
        batch: the sequences of this step.
        arguments: see `Arguments`.
        objective: the loss.
        scale: what the loss is multiplied by, so that one clipping bound suits models of any norm.
        micro_batch: sequences that go through the block at once; all of them where None.
        whole: sequences of the whole batch where `batch` is this process's share of it, which may be empty.
        group: the processes that share it.
    """
    size = whole or len(batch)
    total = torch.zeros((), device=batch.before.device)
    for part in _parts(batch, micro_batch or size):
        with autocast(part.before.device.type, part.stored):
            loss = objective(hidden_of(block(part.before, **arguments(len(part)))), part)
        share = len(part) / size
        (loss * (scale * share)).backward()  # type: ignore[no-untyped-call]
        total += loss.detach() * share
    total = group.add_up(block, total)
    torch.nn.utils.clip_grad_norm_(block.parameters(), LARGEST_GRADIENT_NORM)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return total


def _parts(batch: Batch, size: int) -> Iterator[Batch]:
    for begin in range(0, len(batch), size):
        rows = slice(begin, begin + size)
        yield replace(batch, before=batch.before[rows], after=batch.after[rows], input_ids=batch.input_ids[rows])


def fit(
    block: nn.Module,
    pairs: Examples,
    arguments: Arguments,
    plan: Plan,
    objective: Objective | None = None,
    *,
    report: Report | None = None,
    keeper: Keeper | None = None,
    group: Group = ALONE,
) -> History:
    """Train a block in place; afterwards it holds the best state seen on the held-out pairs, or its start.

    A loss or held-out loss that is not finite ends training early; it is in no history, which says `diverged`. Same
    seed, same data and same device give the same bytes on CPU, also where the run was interrupted and resumed.

    Args:
        block: float32 weights; maps h [batch, sequence, hidden] to h'.
        pairs: the data, split.
        arguments: see `Arguments`.
        plan: epochs, peak learning rate, sequences per batch, seed of the shuffles.
        objective: the loss; MSE where None.
        report: told (step, steps, values) of every logged step and of every check on what is held out.
        keeper: where the state is kept and looked for.
        group: the processes that train together; each calls this with the same, and all end with the same block.

    Raises:
        EngineError: `out_of_memory` where not even one sequence at a time fits.
    """
    return _Fit(block, pairs, arguments, plan, objective or MeanSquaredError(), keeper, group, report).run()


class _Fit:
    """One call of `fit`."""

    def __init__(
        self,
        block: nn.Module,
        pairs: Examples,
        arguments: Arguments,
        plan: Plan,
        objective: Objective,
        keeper: Keeper | None,
        group: Group,
        report: Report | None,
    ) -> None:
        self._block, self._pairs, self._arguments = block, pairs, arguments
        self._plan, self._objective, self._keeper = plan, objective, keeper
        self._group, self._report = group, report or (lambda _step, _steps, _values: None)
        block.eval().requires_grad_(True)  # evaluation mode: no dropout, the target is deterministic
        self._optimizer = make_optimizer(block, plan.learning_rate)
        self._per_epoch = math.ceil(len(pairs.train) / plan.batch_size)
        self._steps = plan.epochs * self._per_epoch

    def run(self) -> History:
        began = time.monotonic()
        step = self._begin()
        history = self._history
        before = history.seconds
        check_at = {math.ceil(self._steps * (check + 1) / CHECKS) for check in range(CHECKS)}
        log_every = max(1, self._steps // LOGGED_STEPS)
        for batch, whole in self._batches(step):
            rate = learning_rate_at(step, self._steps, self._plan.learning_rate)
            for group in self._optimizer.param_groups:
                group["lr"] = rate
            loss = self._step(batch, whole)
            step += 1
            if step % log_every == 0 or step == self._steps:
                value = loss.item()
                # Before anything is noted: the best state so far is kept, and no file or event holds a NaN.
                if not math.isfinite(value):
                    history.diverged = True
                    break
                values = {"step": step, "tokens": self._tokens(step), "loss": value, "learning_rate": rate}
                history.steps.append(values)
                self._report(step, self._steps, values)
            if step in check_at and not self._check(step):
                break
            history.seconds = before + time.monotonic() - began
            if self._keeper and self._keeper.due():
                self._keeper.save(step, self._block, self._best, self._optimizer, asdict(history))
        self._block.load_state_dict(self._best)
        self._block.requires_grad_(False)
        history.seconds = before + time.monotonic() - began
        if self._keeper:
            self._keeper.save(self._steps, self._block, self._best, None, asdict(history))
        return history

    def _begin(self) -> int:
        """Start anew or where a kept state left off; returns the steps that are done."""
        self._group.align(self._block)
        if self._keeper and (resumed := self._keeper.restore(self._block, self._optimizer)):
            self._history, self._best = History(**resumed.history), resumed.best
            self._scale = self._scale_of_loss()
            return self._steps if resumed.finished else resumed.step
        start = self._error(self._block)
        self._history = History(start, start if math.isfinite(start) else math.inf, micro_batch=self._plan.batch_size)
        if math.isfinite(start):
            self._history.held_out.append({"step": 0, "loss": start})
            self._report(0, self._steps, {"step": 0, "held_out_loss": start})
        self._best = copy.deepcopy(self._block.state_dict())
        self._scale = self._scale_of_loss()
        return 0

    def _scale_of_loss(self) -> float:
        if not isinstance(self._objective, MeanSquaredError):
            return 1.0
        # Squared errors grow with the model's norm: measured against the plain cut's they do not.
        return 1 / max(self._error(None), torch.finfo(torch.float32).tiny)

    def _error(self, block: nn.Module | None) -> float:
        return self._pairs.error(block, self._arguments, self._plan.batch_size, self._objective, self._group)

    def _batches(self, done: int) -> Iterator[tuple[Batch, int]]:
        """Yield this process's share of each batch from step `done` on, and the size of the whole.

        Computing states anew needs the device, and nothing is read ahead of it.
        """
        indices = (
            order[begin : begin + self._plan.batch_size]
            for epoch in range(done // self._per_epoch, self._plan.epochs)
            for order in [self._order(epoch)]
            for begin in range(0, len(order), self._plan.batch_size)
            if epoch * self._per_epoch + begin // self._plan.batch_size >= done
        )
        if not self._pairs.reads_ahead:
            yield from ((self._pairs.batch(self._group.own(i)), len(i)) for i in indices)
            return
        before, waits = self._history.data_wait_seconds, DeviceWaits(next(self._block.parameters()).device)

        def read(whole: list[int]) -> tuple[Batch, int]:
            return self._pairs.batch(self._group.own(whole)), len(whole)

        for found in read_ahead(read, indices, waits):
            self._history.data_wait_seconds = before + waits.seconds
            yield found

    def _tokens(self, step: int) -> int:
        epochs, rest = divmod(step, self._per_epoch)
        sequences = epochs * len(self._pairs.train) + min(rest * self._plan.batch_size, len(self._pairs.train))
        return sequences * self._pairs.length

    def _order(self, epoch: int) -> list[int]:
        generator = torch.Generator().manual_seed(self._plan.seed + epoch)
        return [self._pairs.train[i] for i in torch.randperm(len(self._pairs.train), generator=generator).tolist()]

    def _step(self, batch: Batch, whole: int) -> Tensor:
        while True:
            micro = self._history.micro_batch
            try:
                return train_step(
                    self._block, self._optimizer, batch, self._arguments, self._objective,
                    scale=self._scale, micro_batch=micro, whole=whole, group=self._group,
                )  # fmt: skip
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                self._optimizer.zero_grad(set_to_none=True)
                if micro == 1:
                    raise EngineError(
                        "out_of_memory",
                        f"not even one sequence of {batch.input_ids.shape[1]} tokens can be trained on ({error}); "
                        "lower scoring.sequence_length, or do without healing and any loss but mse",
                        permanent=True,
                    ) from error
                self._history.micro_batch = max(1, micro // 2)

    def _check(self, step: int) -> bool:
        """Judge by the held-out pairs; False where training is to end."""
        history, error = self._history, self._error(self._block)
        if not math.isfinite(error):
            history.diverged = True
            return False
        history.held_out.append({"step": step, "loss": error})
        self._report(step, self._steps, {"step": step, "held_out_loss": error})
        if error < history.best:
            history.best, history.best_step = error, step
            self._best = copy.deepcopy(self._block.state_dict())
        since = sum(check["step"] > history.best_step for check in history.held_out)
        history.stopped_early = since >= PATIENCE and step < self._steps
        return not history.stopped_early


def read_ahead(read: Callable[[Wanted], Read], wanted: Iterable[Wanted], waits: DeviceWaits) -> Generator[Read]:
    """Yield what `read` makes of each of `wanted`, in order.

    On CUDA the next is read in a thread while one is worked with. A CPU's cores all compute: with a thread that
    reads, steps took 5 to 7 % more than the bare step, and 2 to 5 % more where batches are read in turn.
    """
    if not waits.overlap:
        for item in wanted:
            began = time.monotonic()
            found = read(item)
            waits.ended(None, time.monotonic() - began)
            yield found
        return
    rest = iter(wanted)
    with ThreadPoolExecutor(1, thread_name_prefix="batches") as reader:
        coming = [reader.submit(read, item) for item in islice(rest, 1)]
        while coming:
            coming += [reader.submit(read, item) for item in islice(rest, 1)]
            mark, began = waits.begun(), time.monotonic()
            found = coming.pop(0).result()
            waits.ended(mark, time.monotonic() - began)
            yield found
