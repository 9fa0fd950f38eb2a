"""How much memory the GPU of this worker has: as its operator says, or as the device does."""

import subprocess
import sys
from typing import Final

from app.core.device_memory import class_floor
from app.settings import Settings, SettingsError

_ASK: Final = """
import torch
print(torch.cuda.get_device_properties(0).total_memory if torch.cuda.is_available() else 0)
"""
_ASK_SECONDS: Final = 120.0


def memory_of_worker(settings: Settings) -> int | None:
    """Return the GPU memory, in bytes, that this worker takes jobs for; None: it takes every job.

    Asked to find out (`auto`), it takes what the first device in sight has, and every job where the engine computes on
    CPU. A process of its own asks, because whoever has asked keeps a context on the device.

    Raises:
        SettingsError: the device does not tell, is not there, or has less than any class of jobs needs.
    """
    stated = settings.worker_memory
    if stated != "auto":
        return None if stated is None else _class_floor(stated)
    if settings.device == "cpu":
        return None
    try:
        asked = subprocess.run(
            [sys.executable, "-c", _ASK], capture_output=True, text=True, timeout=_ASK_SECONDS, check=True
        )
        found = int(asked.stdout)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        raise SettingsError(
            f"STREAMLINE_WORKER_MEMORY: auto, but the device does not tell its memory ({type(error).__name__}); state "
            "it, such as 24g."
        ) from None
    if found:
        return _class_floor(found)
    if settings.device == "cuda":
        raise SettingsError("STREAMLINE_WORKER_MEMORY: auto, but no CUDA device is in sight; look at its driver.")
    return None


def _class_floor(memory_bytes: int) -> int:
    try:
        return class_floor(memory_bytes)
    except ValueError as error:
        told = f"STREAMLINE_WORKER_MEMORY: {error}; leave it out, and the worker takes every job."
        raise SettingsError(told) from None
