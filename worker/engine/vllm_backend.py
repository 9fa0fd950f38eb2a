"""Generation by vLLM, where it is installed: the same rounds as with transformers, by the engine that often serves."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from torch import Tensor

_MEMORY_SHARE = 0.85  # of the device, for all models of a benchmark together


class VllmGenerator:
    """One model in a vLLM engine of its own.

    Args:
        path: a checkpoint that vLLM can load without code of its own.
        dtype: what to compute in, by its name.
        models: how many share the device.
        positions: prompt and new tokens at most.
    """

    def __init__(self, path: Path, dtype: str, *, models: int, positions: int) -> None:
        from vllm import LLM

        self._engine = LLM(
            model=str(path),
            dtype=dtype,
            max_model_len=positions,
            gpu_memory_utilization=_MEMORY_SHARE / models,
            enable_prefix_caching=False,  # every round sends the same prompts
            disable_log_stats=True,
        )

    def generate(self, prompt: Tensor, new_tokens: int) -> tuple[float, list[float]]:
        """Generate greedily after `prompt` [batch, sequence]; return the seconds to the first token and per later one.

        The engine hands a batch out as a whole, so the first token is timed by itself and the rest share what is left.
        """
        first = self._seconds(prompt, 1)
        rest = max(0.0, self._seconds(prompt, new_tokens) - first)
        return first, [rest / (new_tokens - 1)] * (new_tokens - 1)

    def _seconds(self, prompt: Tensor, tokens: int) -> float:
        from vllm import SamplingParams

        prompts: list[Any] = [{"prompt_token_ids": row} for row in prompt.tolist()]
        started = time.perf_counter()
        self._engine.generate(
            prompts, SamplingParams(temperature=0, max_tokens=tokens, ignore_eos=True), use_tqdm=False
        )
        return time.perf_counter() - started
