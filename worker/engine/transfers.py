"""Copies of hidden states between files and a CUDA device, made while the device computes.

From pageable memory, or with a conversion on the way, the driver copies in small pieces and the device waits; from
pinned memory it copies while kernels run (CUDA C++ Programming Guide, "Asynchronous Concurrent Execution"). A CPU
computes with the cores that would copy, so there everything happens at once.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import IO

import torch
from torch import Tensor

WRITERS = 4
IN_FLIGHT = 2 * WRITERS
"""Tensors on their way to a file at most; each holds as much pinned memory as it is large."""


class StateWriter:
    """Writes tensors to places in files; all of them are there when the context ends.

    Raises what writing or checking raised, at a later `write` or at the end.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._threads = ThreadPoolExecutor(WRITERS, thread_name_prefix="states") if device.type == "cuda" else None
        self._pending: deque[Future[None]] = deque()

    def __enter__(self) -> StateWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._threads is not None:
            self._threads.shutdown(wait=True, cancel_futures=error is not None)
        while error is None and self._pending:
            self._pending.popleft().result()

    def write(self, file: IO[bytes], offset: int, states: Tensor, check: Callable[[Tensor], object]) -> None:
        """Write a tensor's bytes from `offset` on, now or soon; the tensor may be changed at once.

        What is to be written goes through `check` first, on the CPU where the device computes on meanwhile.
        """
        if self._threads is None:
            check(states)
            write_states(file, offset, states)
            return
        while len(self._pending) >= IN_FLIGHT or (self._pending and self._pending[0].done()):
            self._pending.popleft().result()
        # In the stream that computes: the copy takes a hundredth of what made the states, and nothing overtakes it.
        host = torch.empty(states.shape, dtype=states.dtype, pin_memory=True)
        host.copy_(states, non_blocking=True)
        copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
        copied.record(torch.cuda.current_stream(self._device))
        self._pending.append(self._threads.submit(_write_when, copied, file, offset, host, check))


def _write_when(
    copied: torch.cuda.Event, file: IO[bytes], offset: int, states: Tensor, check: Callable[[Tensor], object]
) -> None:
    copied.synchronize()
    check(states)
    write_states(file, offset, states)


def write_states(file: IO[bytes], offset: int, states: Tensor) -> None:
    """Write a tensor's bytes, all of them, from `offset` on; the file's own position stays where it is."""
    raw: memoryview = states.contiguous().cpu().view(torch.uint8).reshape(-1).numpy().data
    while raw:
        done = os.pwrite(file.fileno(), raw, offset)
        raw, offset = raw[done:], offset + done


class StateReader:
    """Brings stored states to the device that computes, in float32.

    On CUDA in a stream of its own, so that a thread can fetch a batch while the one before is computed with.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]
        # Asked now: in a thread of its own, a device without a number would be the first one.
        self._computing = torch.cuda.default_stream(device) if device.type == "cuda" else None

    def stacked(self, states: list[Tensor]) -> Tensor:
        """Return tensors of one shape, stacked, on the device in float32; it has arrived when this returns."""
        if self._stream is None or self._computing is None:
            return torch.stack(states).to(self._device, torch.float32)
        host = torch.empty((len(states), *states[0].shape), dtype=states[0].dtype, pin_memory=True)
        torch.stack(states, out=host)
        with torch.cuda.stream(self._stream):
            moved = host.to(self._device, non_blocking=True).float()
        self._stream.synchronize()
        # Its memory is this stream's; it is free again when the stream that computes with it is done.
        moved.record_stream(self._computing)
        return moved


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Return a CPU tensor's copy on the device; on CUDA without waiting for what the device has to do before."""
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


class DeviceWaits:
    """Adds up how long a device has nothing to do because its data are not there yet.

    A thread that waits says little on CUDA: it runs ahead of the device, which computes meanwhile.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.overlap = device.type == "cuda"
        """Whether reading and computing are done by different things."""
        self._open: deque[tuple[torch.cuda.Event, torch.cuda.Event]] = deque()
        self.seconds = 0.0

    def begun(self) -> torch.cuda.Event | None:
        """Everything so far has been handed to the device, and the next data are waited for."""
        return self._marked() if self._device.type == "cuda" else None

    def ended(self, begun: torch.cuda.Event | None, seconds: float) -> None:
        """The data have arrived, `seconds` later by the clock of this thread."""
        if begun is None:
            self.seconds += seconds
            return
        self._open.append((begun, self._marked()))
        while self._open and self._open[0][1].query():  # type: ignore[no-untyped-call]
            first, last = self._open.popleft()
            self.seconds += first.elapsed_time(last) / 1e3

    def _marked(self) -> torch.cuda.Event:
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record(torch.cuda.default_stream(self._device))
        return event
