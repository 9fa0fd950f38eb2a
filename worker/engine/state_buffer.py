"""Hidden states of many sequences between two layers: in memory while they are few, else in a file."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from types import TracebackType
from typing import IO

import torch
from torch import Tensor

from worker.engine.activation_store import disk_full
from worker.engine.transfers import write_states

MEMORY_BYTES = 128 << 20
"""States kept in memory on CPU. Beyond it the page cache does the same and gives way when memory is short."""


class StateBuffer:
    """Slots of hidden states, each [sequences, length, hidden], written and read a few sequences at a time.

    The file has no name: however the process ends, the disk is free again.
    """

    def __init__(
        self, directory: Path, slots: int, shape: tuple[int, int, int], dtype: torch.dtype, device: torch.device
    ) -> None:
        """Make room.

        Args:
            directory: where the file goes if one is needed.
            slots: how many.
            shape: (sequences, length, hidden) of one slot.
            dtype: what states are computed in; they are kept as they are.
            device: where states come from and go to.

        Raises:
            EngineError: `disk_full`, before anything is written, where the file would not fit.
        """
        self._shape, self._dtype, self._device = shape, dtype, device
        self._row_bytes = shape[1] * shape[2] * dtype.itemsize
        self._memory: Tensor | None = None
        self._file: IO[bytes] | None = None
        needed = slots * shape[0] * self._row_bytes
        if needed <= _budget(device):
            self._memory = torch.empty((slots, *shape), dtype=dtype, device=device)
            return
        if needed > shutil.disk_usage(directory).free:
            raise disk_full(directory, needed)
        self._file = tempfile.TemporaryFile(dir=directory, buffering=0)  # noqa: SIM115 - closed with the buffer

    def __enter__(self) -> StateBuffer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._memory = None
        if self._file is not None:
            self._file.close()

    def write(self, slot: int, first: int, states: Tensor) -> None:
        """Keep `states` [some, length, hidden] as the sequences from `first` on."""
        if self._memory is not None:
            self._memory[slot, first : first + len(states)] = states
            return
        assert self._file is not None
        write_states(self._file, (slot * self._shape[0] + first) * self._row_bytes, states)

    def read(self, slot: int, first: int, count: int) -> Tensor:
        """Return `count` sequences from `first` on, [count, length, hidden], free to be changed."""
        if self._memory is not None:
            return self._memory[slot, first : first + count].clone()
        assert self._file is not None
        self._file.seek((slot * self._shape[0] + first) * self._row_bytes)
        states = torch.empty((count, *self._shape[1:]), dtype=self._dtype)
        raw: memoryview = states.view(torch.uint8).reshape(-1).numpy().data
        while raw:
            raw = raw[self._file.readinto(raw) :]  # type: ignore[attr-defined]
        return states.to(self._device)


def _budget(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0]) // 4
    return MEMORY_BYTES
