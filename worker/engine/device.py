"""Which device and number formats a run computes with."""

from __future__ import annotations

from contextlib import nullcontext
from functools import cache
from pathlib import Path
from typing import Any

import torch

from app.core.safetensors_file import read_checkpoint
from worker.engine.errors import EngineError
from worker.engine.surgery import TORCH_DTYPES, usual_dtype

_TOKENS_AT_ONCE = {"cpu": 2048, "cuda": 16384}
"""Of a forward pass: enough to fill two cores or one GPU. On CPU four times as many run a quarter slower, since what a
layer makes no longer fits into the caches."""

_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


OUT_OF_MEMORY_WORDS = ("can't allocate memory", "CUDA error: out of memory", "OutOfMemoryError")
"""How torch says it: of CUDA's memory by a class of its own, of the machine's and its pinned part by sentences."""


def resolve(wanted: str) -> str:
    """Return ``cuda`` or ``cpu`` for ``auto``, ``cuda`` or ``cpu``.

    Raises:
        EngineError: `no_cuda` where CUDA is asked for and there is none.
    """
    available = torch.cuda.is_available()
    if wanted == "cuda" and not available:
        raise EngineError("no_cuda", "device is cuda but this machine has no usable CUDA device; use auto or cpu")
    return "cuda" if wanted in ("auto", "cuda") and available else "cpu"


def count(device: str) -> int:
    """Return how many devices of a kind there are to compute with; all cores of a processor are one."""
    return torch.cuda.device_count() if device == "cuda" else 1


def sequences_at_once(device: str, length: int) -> int:
    """Return how many sequences of `length` tokens a forward pass without gradients takes at a time, at least one."""
    return max(1, _TOKENS_AT_ONCE[device] // length)


def dtype_of(name: str) -> torch.dtype:
    """Return the torch dtype for its name; a ``torch.`` prefix is understood."""
    return _DTYPES[name.removeprefix("torch.")]


def stored_dtype(model: Path) -> torch.dtype:
    """Return the dtype that most bytes of a model directory's weights are stored in (float32 where none is a float).

    Read from the weights' headers: a config often says what a model was trained in, and not how it was saved.
    """
    return TORCH_DTYPES[usual_dtype(read_checkpoint(model)) or "F32"]


def compute_dtype(device: str, stored: torch.dtype) -> torch.dtype:
    """Return the dtype to compute in: float32 on CPU whatever is stored; the stored half format or bfloat16 on CUDA.

    CPUs without bfloat16 units emulate it slowly, and float32 makes small differences between runs visible as bugs.
    """
    if device == "cpu":
        return torch.float32
    return stored if stored in (torch.bfloat16, torch.float16) else torch.bfloat16


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an exception means that memory ran out, of the device or of the machine."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return any(said in str(error) for said in OUT_OF_MEMORY_WORDS)


@cache
def has_bfloat16_units() -> bool:
    """Tell whether this machine's processor has units for products of bfloat16 matrices: Intel's AMX, or Arm's.

    AVX512_BF16 alone is none: its products take up to twice as long as those in float32 (measured on a Xeon without
    AMX, matrices from 128 to 4,096 wide). Asked of the processor and not of a clock, so that a machine gives the same
    bytes each time.
    """
    found = torch.cpu.get_capabilities()
    return any(found.get(name, False) for name in ("amx_bf16", "bf16"))


def autocast(device: str, stored: torch.dtype, weights: torch.dtype = torch.float32) -> Any:
    """Return the context in which hidden states are computed and blocks are trained: it multiplies float32 in bfloat16.

    On CUDA always. On a CPU with units for it where the weights are stored in bfloat16 anyway: products are half as
    dear, the residual stream stays float32, and the states differ by less than a thousandth of what a window changes.
    Whatever is compared with the written checkpoint (the proof, perplexity) is computed without it.

    Args:
        device: ``cpu`` or ``cuda``.
        stored: the dtype of the model's weights on disk.
        weights: the dtype of what is run; a half format is left as it is.
    """
    if weights != torch.float32:
        return nullcontext()
    if device == "cuda" or (stored == torch.bfloat16 and has_bfloat16_units()):
        return torch.autocast(device, torch.bfloat16)
    return nullcontext()
