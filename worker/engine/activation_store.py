"""The training pairs (h_start, h_end) on disk: written while they are computed, read back by memory map.

Activations of S sequences of T tokens take 2 x S x T x hidden numbers in the model's own dtype. Memory holds one batch
while writing and one batch while reading; the page cache holds what fits.
"""

from __future__ import annotations

import errno
import math
import mmap
import os
import shutil
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from app.core.architectures import hidden_size
from worker.engine.errors import EngineError
from worker.engine.hidden_states import LayeredModel
from worker.engine.transfers import StateReader, StateWriter

SHARD_BYTES = 256 << 20
_MOST_SHARDS = 256
"""Each is an open file while writing and a map while reading, of which a process has about a thousand."""
_SHARD = "activations-{}.bin"


def disk_full(path: Path, needed: int, allowed: int | None = None) -> EngineError:
    """Return the error for a full disk: bytes needed and bytes free at `path`, or the fewer that are allowed."""
    if allowed is None:
        free = shutil.disk_usage(next(place for place in (path, *path.parents) if place.exists())).free
        what = f"{free} are free; free some space, or lower replacement.tokens"
    else:
        what = (
            f"{allowed} may be taken by hidden states (--activation-bytes, STREAMLINE_ACTIVATION_BYTES); raise that, "
            "or lower replacement.tokens"
        )
    return EngineError("disk_full", f"{needed} bytes are needed in the workspace and {what}", permanent=True)


def stored_bytes(decoder: LayeredModel, windows: Tensor) -> int:
    """Return what the pairs of token windows [sequences, length] take on disk."""
    return 2 * windows.numel() * hidden_size(decoder.config) * decoder.stored_dtype.itemsize


class ActivationStore:
    """Pairs of hidden states, one pair of [sequence, hidden] matrices per sequence.

    A shard is one file of consecutive sequences, h_start of all and then h_end of all, [2, sequences, length, hidden]:
    a streamed model has the former long before the latter.
    """

    reads_ahead = True

    def __init__(self, maps: list[mmap.mmap], shards: list[Tensor], device: torch.device) -> None:
        self._maps, self._shards = maps, shards
        self._rows = [(shard, row) for shard in shards for row in range(shard.shape[1])]
        self._device, self._reader = device, StateReader(device)
        self.seconds = 0.0
        """Wall time of the capture."""

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def length(self) -> int:
        """Tokens per sequence."""
        return int(self._shards[0].shape[2])

    @property
    def stored_dtype(self) -> torch.dtype:
        """The dtype of the states on disk."""
        return self._shards[0].dtype

    def batch(self, indices: list[int]) -> tuple[Tensor, Tensor]:
        """Return (h_start, h_end) of some sequences, which may be none, each [batch, sequence, hidden] in float32."""
        if not indices:
            none = torch.empty((0, *self._shards[0].shape[2:]), device=self._device)
            return none, none
        pairs = self._reader.stacked([shard[:, row] for shard, row in (self._rows[index] for index in indices)])
        # The page cache may keep what was read; this process shall not grow with the data.
        for mapped in self._maps:
            mapped.madvise(mmap.MADV_DONTNEED)
        return pairs[:, 0], pairs[:, 1]

    @classmethod
    def capture(
        cls,
        decoder: LayeredModel,
        windows: Tensor,
        start: int,
        end: int,
        directory: Path,
        *,
        batch_size: int,
        progress: Callable[[int, int], None] | None = None,
    ) -> ActivationStore:
        """Run layers 0..end-1 on the windows and store the pairs.

        Args:
            decoder: the dense model.
            windows: token ids [sequences, length].
            start: h_start is the input of layer `start`.
            end: h_end is the output of layer `end` - 1.
            directory: where the shards go; must exist.
            batch_size: sequences at a time.
            progress: told (done, total) sequences.

        Raises:
            EngineError: `disk_full` before anything is written where the shards cannot fit, or when the disk fills up
                meanwhile; `not_finite` where a hidden state is NaN or infinite.
        """
        began = time.monotonic()
        hidden = hidden_size(decoder.config)
        state_bytes = windows.shape[1] * hidden * decoder.stored_dtype.itemsize
        needed = stored_bytes(decoder, windows)
        for left in _shards(directory):  # of a capture with another batch size, which ran out of memory
            if left.is_file():
                left.unlink()
        if needed > shutil.disk_usage(directory).free:
            raise disk_full(directory, needed)
        # Whole batches, so that none is in two files.
        least = max(SHARD_BYTES // (2 * state_bytes) // batch_size, math.ceil(len(windows) / batch_size / _MOST_SHARDS))
        per_shard = max(1, least) * batch_size
        counts = [min(per_shard, len(windows) - first) for first in range(0, len(windows), per_shard)]
        paths = [directory / _SHARD.format(f"{number:05d}") for number in range(len(counts))]
        try:
            with ExitStack() as opened:
                files = [opened.enter_context(path.open("wb", buffering=0)) for path in paths]
                writer = opened.enter_context(StateWriter(decoder.device))

                def keep(first: int, place: int, state: Tensor) -> None:
                    number, row = divmod(first, per_shard)
                    side = int(place == end)
                    offset = (side * counts[number] + row) * state_bytes
                    stored = state.to(decoder.stored_dtype)
                    writer.write(files[number], offset, stored, partial(refuse_not_finite, place))
                    if side and progress:
                        progress(first + len(state), len(windows))

                decoder.visit_windows(windows, batch_size, keep, at={start, end})
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise disk_full(directory, needed) from error
            raise
        store = cls.opened(decoder, windows.shape[1], directory)
        store.seconds = time.monotonic() - began
        return store

    @classmethod
    def opened(cls, decoder: LayeredModel, length: int, directory: Path) -> ActivationStore:
        """Map what `capture` left in a directory; `length` is that of its sequences."""
        hidden, dtype = hidden_size(decoder.config), decoder.stored_dtype
        maps = [_mapped(path) for path in _shards(directory)]
        shards = [torch.frombuffer(mapped, dtype=dtype).view(2, -1, length, hidden) for mapped in maps]
        return cls(maps, shards, decoder.device)


def _shards(directory: Path) -> list[Path]:
    return sorted(directory.glob(_SHARD.format("*")))


def as_stored(state: Tensor, place: int, dtype: torch.dtype) -> Tensor:
    """Return h_place in the dtype of the model's weights.

    Raises:
        EngineError: `not_finite` where it is NaN or infinite there: float16 has no room for what float32 still holds.
    """
    converted = state.to(dtype)
    refuse_not_finite(place, converted)
    return converted


def refuse_not_finite(place: int, state: Tensor) -> None:
    """Refuse h_place where it is no number.

    Raises:
        EngineError: `not_finite`.
    """
    if not torch.isfinite(state).all():
        stored = str(state.dtype).removeprefix("torch.")
        raise EngineError(
            "not_finite", f"the hidden state before layer {place} is NaN or infinite in {stored}; check the model"
        )


def _mapped(path: Path) -> mmap.mmap:
    with path.open("rb") as file:
        # A private writable map: torch refuses read-only buffers, and nothing ever writes to it.
        return mmap.mmap(file.fileno(), os.fstat(file.fileno()).st_size, access=mmap.ACCESS_COPY)
