"""The state of a training run on disk, so that a killed engine goes on in the middle of an epoch.

One safetensors file per phase, replaced atomically: the block, its best state and the optimiser's moments as tensors,
counters and history as JSON in the header. A state counts only under the key that it was written with, a hash of
everything that the run depends on. The order of the batches is drawn from seed and epoch, so it needs no saving.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from worker.engine.context import write_bytes

_BLOCK, _BEST, _MOMENTS = "block.", "best.", "optimizer."


@dataclass(frozen=True)
class Resumed:
    """What a file held: the steps that are done, their history, and whether the phase was finished."""

    step: int
    history: dict[str, Any]
    finished: bool
    best: dict[str, Tensor]


class Keeper:
    """Saves and restores one phase of training.

    Args:
        path: the file; its directory is made when it is first written.
        key: a state that was written under another key is not used.
        every_seconds: wall time between two states at least, and twenty times what writing the last one took; 0: one
            after each step.
        writes: whether it saves anything, or is one of several that restore the same file.
    """

    def __init__(self, path: Path, key: str, every_seconds: float, *, writes: bool = True) -> None:
        self._path, self._key, self._every, self._writes = path, key, every_seconds, writes
        self._last, self._took = time.monotonic(), 0.0

    def due(self) -> bool:
        """Tell whether it is time to save."""
        pause = max(self._every, 20 * self._took) if self._every else 0.0
        return self._writes and time.monotonic() - self._last >= pause

    def save(
        self,
        step: int,
        block: nn.Module,
        best: Mapping[str, Tensor],
        optimizer: torch.optim.Optimizer | None,
        history: Mapping[str, Any],
    ) -> None:
        """Write the state after `step` steps; without an optimiser the phase is finished."""
        if not self._writes:
            return
        began = time.monotonic()
        tensors = {f"{_BLOCK}{name}": value for name, value in block.state_dict().items()}
        tensors |= {f"{_BEST}{name}": value for name, value in best.items()}
        if optimizer is not None:
            for number, moments in optimizer.state_dict()["state"].items():
                tensors |= {f"{_MOMENTS}{number}.{name}": value for name, value in moments.items()}
        copies = {name: _own_copy(value.detach()) for name, value in tensors.items()}
        header = {"key": self._key, "step": step, "finished": optimizer is None, "history": history}
        write_bytes(self._path, save(copies, metadata={"state": json.dumps(header, sort_keys=True)}))
        self._last = time.monotonic()
        self._took = self._last - began

    def restore(self, block: nn.Module, optimizer: torch.optim.Optimizer) -> Resumed | None:
        """Put a saved state back into `block` and `optimizer`; None, with both untouched, where there is none."""
        try:
            with safe_open(self._path, framework="pt") as file:
                header = json.loads((file.metadata() or {})["state"])
                if header["key"] != self._key:
                    return None
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        except (OSError, SafetensorError, KeyError, ValueError):
            return None
        block.load_state_dict(_under(_BLOCK, tensors))
        if not header["finished"]:
            moments: dict[int, dict[str, Tensor]] = {}
            for name, value in _under(_MOMENTS, tensors).items():
                number, _, moment = name.partition(".")
                moments.setdefault(int(number), {})[moment] = value
            optimizer.load_state_dict({**optimizer.state_dict(), "state": moments})
        device = next(block.parameters()).device
        best = {name: value.to(device) for name, value in _under(_BEST, tensors).items()}
        return Resumed(header["step"], header["history"], header["finished"], best)


def _own_copy(value: Tensor) -> Tensor:
    # Safetensors refuses tensors that share memory, and a best state may be the block's own.
    return (value.clone() if value.device.type == "cpu" else value.cpu()).contiguous()


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
