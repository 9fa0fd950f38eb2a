"""The most memory that a piece of work takes, from the allocator on CUDA and from the kernel on Linux."""

from __future__ import annotations

import contextlib
import ctypes
import gc
from collections.abc import Callable
from pathlib import Path

import psutil
import torch


def peak_growth(device: torch.device, work: Callable[[], object]) -> int:
    """Do `work` and return the most bytes that were in use meanwhile beyond those in use before.

    On CUDA that is the allocator's own count; on Linux the resident set's, after giving free memory back to the system.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = int(torch.cuda.memory_allocated(device))
        work()
        return int(torch.cuda.max_memory_allocated(device)) - before
    _return_free_memory()
    _reset_peak_resident()
    before = int(psutil.Process().memory_info().rss)
    work()
    return max(0, _peak_resident() - before)


def gpu_peak_bytes(device: str) -> int | None:
    """The most bytes that the allocator has held on the GPU since it was last asked to forget; None on a CPU."""
    return int(torch.cuda.max_memory_allocated()) if device == "cuda" else None


def forget_gpu_peak(device: str) -> None:
    """Let `gpu_peak_bytes` count from now on."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()


def _return_free_memory() -> None:
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # glibc only
        ctypes.CDLL(None).malloc_trim(0)


def _reset_peak_resident() -> None:
    # Linux, proc(5): writing 5 sets the peak resident set size to the current one.
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def _peak_resident() -> int:
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return int(psutil.Process().memory_info().rss)
