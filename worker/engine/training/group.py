"""Processes that train one block together: each computes with its share of a batch, and what they find is added up.

All of them run the same loop over the same data in the same order and hold the same block, so that each takes the same
decisions; only the first one writes files and tells of progress.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import torch
from torch import Tensor, nn

LONGEST_WAIT = timedelta(minutes=30)
"""For another process: the first one may be judging or writing, and a device may be slow."""


@dataclass(frozen=True)
class Group:
    """`size` processes, of which this is number `rank`; one that is alone asks nobody."""

    rank: int = 0
    size: int = 1

    def own(self, items: Sequence[int]) -> list[int]:
        """Return this process's share of some sequences, which may be empty."""
        return list(items[self.rank :: self.size])

    def sum(self, number: float) -> float:
        """Return the sum of the numbers of all processes."""
        if self.size == 1:
            return number
        # Gloo and NCCL both add on the device that their backend is for.
        from accelerate import PartialState

        return float(self._added(torch.tensor([number], dtype=torch.float64, device=PartialState().device)))

    def add_up(self, block: nn.Module, total: Tensor) -> Tensor:
        """Replace the gradients of a block by their sums over all processes; returns the sum of `total`, a scalar."""
        if self.size == 1:
            return total
        parameters = list(block.parameters())
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        summed = self._added(torch.cat([total.reshape(1), *(gradient.reshape(-1) for gradient in gradients)]))
        parts = torch.split(summed[1:], [parameter.numel() for parameter in parameters])
        for parameter, part in zip(parameters, parts, strict=True):
            parameter.grad = part.view_as(parameter).to(parameter.dtype)
        return summed[0]

    def align(self, block: nn.Module) -> None:
        """Give a block the first process's state everywhere."""
        if self.size > 1:
            from accelerate.utils import broadcast

            for tensor in block.state_dict().values():
                tensor.copy_(broadcast(tensor.clone(), from_process=0))

    @staticmethod
    def _added(tensor: Tensor) -> Tensor:
        from accelerate.utils import reduce

        summed: Tensor = reduce(tensor, reduction="sum")
        return summed


ALONE = Group()


@contextmanager
def member(rank: int, size: int, device: str, meeting: Path) -> Iterator[Group]:
    """Be one of `size` processes until the context ends; they find each other through the file `meeting`.

    Processor threads are shared out among them.
    """
    from accelerate import PartialState

    threads = max(1, torch.get_num_threads() // size) if device == "cpu" else torch.get_num_threads()
    names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size, "OMP_NUM_THREADS": threads}
    before, threads_before = {name: os.environ.get(name) for name in names}, torch.get_num_threads()
    os.environ.update({name: str(value) for name, value in names.items()})
    torch.set_num_threads(threads)
    try:
        state = PartialState(
            cpu=device == "cpu",
            init_method=f"file://{meeting}",
            rank=rank,
            world_size=size,
            timeout=LONGEST_WAIT,
        )
        try:
            yield Group(rank, size)
        finally:
            state.destroy_process_group()
            PartialState._reset_state()
    finally:
        torch.set_num_threads(threads_before)
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
