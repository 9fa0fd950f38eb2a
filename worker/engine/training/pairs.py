"""What is trained on, split into sequences that are trained on and those that only judge."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from worker.engine.device import autocast, is_out_of_memory
from worker.engine.losses import Batch, MeanSquaredError, Objective
from worker.engine.stand_ins import hidden_of
from worker.engine.training.group import ALONE, Group
from worker.engine.transfers import to_device

Arguments = Callable[[int], dict[str, Any]]
"""Batch size -> what the block is called with beside the hidden states."""

HELD_OUT_SHARE = 20  # one sequence in twenty is held out of the training pairs, 64 at most
MOST_HELD_OUT = 64


def split(count: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return which of `count` sequences are trained on, and which are held out: every twentieth, at least one, 64 at
    most. A single sequence serves as both."""
    held_count = min(MOST_HELD_OUT, max(1, count // HELD_OUT_SHARE))
    stride = max(1, count // held_count)
    held = tuple(range(stride - 1, count, stride))[:held_count]
    rest = tuple(sorted(set(range(count)) - set(held)))
    return rest or held, held


class Examples(ABC):
    """What a block is trained on, split: which sequences are trained on and which only judged by."""

    train: tuple[int, ...]
    held_out: tuple[int, ...]

    @property
    def reads_ahead(self) -> bool:
        """Whether a batch may be read in a thread of its own while the one before is computed with."""
        return True

    @property
    @abstractmethod
    def length(self) -> int:
        """Tokens per sequence."""

    @abstractmethod
    def batch(self, indices: list[int]) -> Batch:
        """Return some sequences, which may be none, on the device that computes."""

    def error(
        self,
        block: nn.Module | None,
        arguments: Arguments,
        batch_size: int,
        objective: Objective | None = None,
        group: Group = ALONE,
    ) -> float:
        """Return the block's mean loss on the held-out sequences; `block` None is the plain cut, no objective MSE.

        Each process of a group goes through its share of them.
        """
        own = group.own(self.held_out)
        return group.sum(self._total_error(block, arguments, batch_size, objective, own)) / len(self.held_out)

    @torch.no_grad()
    def _total_error(
        self,
        block: nn.Module | None,
        arguments: Arguments,
        batch_size: int,
        objective: Objective | None,
        indices: list[int],
    ) -> float:
        loss = objective or MeanSquaredError()
        total, done, size = 0.0, 0, batch_size
        while done < len(indices):
            batch = self.batch(indices[done : done + size])
            try:
                with autocast(batch.before.device.type, batch.stored):
                    made = batch.before if block is None else hidden_of(block(batch.before, **arguments(len(batch))))
                    total += float(loss(made, batch)) * len(batch)
            except RuntimeError as error:
                if not is_out_of_memory(error) or size == 1:
                    raise
                size //= 2
            else:
                done += len(batch)
        return total


class States(Protocol):
    """Hidden states around the window, of numbered sequences: `ActivationStore`, or computed anew each time."""

    reads_ahead: bool

    def __len__(self) -> int: ...

    @property
    def length(self) -> int:
        """Tokens per sequence."""

    @property
    def stored_dtype(self) -> torch.dtype:
        """The dtype that they are stored in, or rounded to."""

    def batch(self, indices: list[int]) -> tuple[Tensor, Tensor]:
        """Return (h_start, h_end) of some sequences, which may be none, each [batch, sequence, hidden] in float32."""


@dataclass(frozen=True)
class Pairs(Examples):
    """Hidden states around the window.

    `input_ids` [sequences, length] are the tokens behind the states, in the same order.
    """

    states: States
    input_ids: Tensor
    train: tuple[int, ...]
    held_out: tuple[int, ...]

    @classmethod
    def split(cls, states: States, input_ids: Tensor) -> Pairs:
        """Split the sequences; see `split`."""
        return cls(states, input_ids, *split(len(states)))

    @property
    def reads_ahead(self) -> bool:
        """What is computed anew has the model to itself."""
        return self.states.reads_ahead

    @property
    def length(self) -> int:
        """Tokens per sequence."""
        return self.states.length

    def batch(self, indices: list[int]) -> Batch:
        """Return some sequences on the store's device."""
        before, after = self.states.batch(indices)
        return Batch(before, after, to_device(self.input_ids[indices], before.device), self.states.stored_dtype)


@dataclass(frozen=True)
class Sequences(Examples):
    """Tokens alone, for what is trained through the whole model: token ids [sequences, length] stand for the states.

    `stored` is the dtype of the model's weights on disk.
    """

    input_ids: Tensor
    device: torch.device
    stored: torch.dtype
    train: tuple[int, ...]
    held_out: tuple[int, ...]

    @classmethod
    def split(cls, input_ids: Tensor, device: torch.device, stored: torch.dtype) -> Sequences:
        """Split token windows; see `split`."""
        return cls(input_ids, device, stored, *split(len(input_ids)))

    @property
    def length(self) -> int:
        """Tokens per sequence."""
        return int(self.input_ids.shape[1])

    def batch(self, indices: list[int]) -> Batch:
        """Return some sequences on the model's device."""
        ids = to_device(self.input_ids[indices], self.device)
        return Batch(ids, ids, ids, self.stored)
