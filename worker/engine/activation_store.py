"""The training pairs (h_start, h_end) on disk: written while they are computed, read back by memory map.

Activations of S sequences of T tokens take 2 x S x T x hidden numbers in the model's own dtype. Memory holds one batch
while writing and one batch while reading; the page cache holds what fits.
"""

from __future__ import annotations

import errno
import mmap
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from app.core.architectures import hidden_size
from worker.engine.decoder import Decoder
from worker.engine.errors import EngineError

SHARD_BYTES = 256 << 20


def disk_full(path: Path, needed: int) -> EngineError:
    """Return the error for a full disk: bytes needed and bytes free at `path`."""
    free = shutil.disk_usage(next(place for place in (path, *path.parents) if place.exists())).free
    return EngineError(
        "disk_full",
        f"{needed} bytes are needed in {path} and {free} are free; free some space, or lower replacement.tokens",
        permanent=True,
    )


class ActivationStore:
    """Pairs of hidden states, one pair of [sequence, hidden] matrices per sequence.

    A shard is one file of consecutive sequences, each as h_start then h_end, [2, sequence, hidden] in `dtype`.
    """

    def __init__(self, shards: list[Tensor], device: torch.device, dtype: torch.dtype) -> None:
        self._shards = shards
        self._rows = [(shard, row) for shard in shards for row in range(len(shard))]
        self._device, self._dtype = device, dtype
        self.seconds = 0.0
        """Wall time of the capture."""

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def length(self) -> int:
        """Tokens per sequence."""
        return int(self._shards[0].shape[2])

    def batch(self, indices: list[int]) -> tuple[Tensor, Tensor]:
        """Return (h_start, h_end) of some sequences, each [batch, sequence, hidden] in float32."""
        pairs = torch.stack([self._rows[index][0][self._rows[index][1]] for index in indices])
        pairs = pairs.to(self._device, self._dtype)
        return pairs[:, 0], pairs[:, 1]

    @classmethod
    def capture(
        cls,
        decoder: Decoder,
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
        shape = (2, windows.shape[1], hidden)
        row_bytes = 2 * windows.shape[1] * hidden * decoder.stored_dtype.itemsize
        needed = len(windows) * row_bytes
        if needed > shutil.disk_usage(directory).free:
            raise disk_full(directory, needed)
        per_shard = max(1, SHARD_BYTES // row_bytes)
        shards: list[Tensor] = []
        try:
            for number, part in enumerate(torch.split(windows, per_shard)):
                path = directory / f"activations-{number:05d}.bin"
                done = number * per_shard
                with path.open("wb") as file:
                    for batch in torch.split(part, batch_size):
                        file.write(_bytes(_pairs(decoder, batch, start, end)))
                        done += len(batch)
                        if progress:
                            progress(done, len(windows))
                shards.append(_mapped(path, (len(part), *shape), decoder.stored_dtype))
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise disk_full(directory, needed) from error
            raise
        store = cls(shards, decoder.device, torch.float32)
        store.seconds = time.monotonic() - began
        return store


def _pairs(decoder: Decoder, batch: Tensor, start: int, end: int) -> Tensor:
    seen: dict[int, Tensor] = {}
    decoder.visit(batch, seen.__setitem__, at={start, end})
    # As stored: a float16 file has no room for what float32 still holds.
    pairs = torch.stack((seen[start], seen[end]), dim=1).to(decoder.stored_dtype)
    if not torch.isfinite(pairs).all():
        layer = start if not torch.isfinite(pairs[:, 0]).all() else end
        stored = str(decoder.stored_dtype).removeprefix("torch.")
        raise EngineError(
            "not_finite", f"the hidden state before layer {layer} is NaN or infinite in {stored}; check the model"
        )
    return pairs


def _bytes(tensor: Tensor) -> bytes:
    return tensor.contiguous().cpu().view(torch.uint8).numpy().tobytes()


def _mapped(path: Path, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    with path.open("rb") as file:
        # A private writable map: torch refuses read-only buffers, and nothing ever writes to it.
        mapped = mmap.mmap(file.fileno(), os.fstat(file.fileno()).st_size, access=mmap.ACCESS_COPY)
    return torch.frombuffer(mapped, dtype=dtype).view(shape)
