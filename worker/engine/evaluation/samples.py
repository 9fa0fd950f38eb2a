"""Greedy continuations of a few prompts, so that a person sees what a number like perplexity hides."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig

from app.core.architectures import max_positions
from worker.engine.decoder import Decoder
from worker.engine.hidden_states import LayeredModel, Layers, without

PROMPT_TOKENS = 16
NEW_TOKENS = 48


def prompts_of(windows: Tensor, count: int = 2) -> Tensor:
    """Return the beginnings [prompts, tokens] of `count` windows, spread evenly over `windows` [count, length]."""
    length = min(PROMPT_TOKENS, max(1, windows.shape[1] // 2))
    step = max(1, len(windows) // count)
    return windows[::step, :length][:count]


@torch.inference_mode()
def continuations(decoder: Decoder, prompts: Tensor, positions: int) -> list[str]:
    """Return the texts of at most `NEW_TOKENS` greedy tokens after each of `prompts` [prompts, tokens]."""
    ids = prompts.to(decoder.device, torch.long)
    tokenizer = decoder.tokenizer
    end = tokenizer.eos_token_id
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else end
    greedy = GenerationConfig(
        do_sample=False,
        max_new_tokens=max(1, min(NEW_TOKENS, positions - ids.shape[1])),
        eos_token_id=end,
        pad_token_id=pad if pad is not None else 0,
    )
    model = decoder.model
    out = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=greedy)  # type: ignore[operator]
    rows: list[list[int]] = out[:, ids.shape[1] :].tolist()
    # What follows the end is padding, which not every tokenizer calls special.
    ended = [row[: row.index(end)] if end in row else row for row in rows]
    return [tokenizer.decode(row, skip_special_tokens=True) for row in ended]


class Samples:
    """Continuations of the same prompts by the dense, the cut and the pruned model; only resident models make them."""

    def __init__(self, windows: Tensor, tokenizer: Any) -> None:
        self._prompts = prompts_of(windows)
        self._found = [{"prompt": tokenizer.decode(prompt, skip_special_tokens=True)} for prompt in self._prompts]

    def add_dense(self, model: LayeredModel, cut: Layers) -> None:
        """Add what the dense model makes of the prompts, whole and without the layers `cut`."""
        if isinstance(model, Decoder):
            self._add("dense", model)
            with without(model, cut):
                self._add("cut", model)

    def add_pruned(self, model: LayeredModel) -> None:
        """Add what the pruned model makes of the prompts."""
        if isinstance(model, Decoder):
            self._add("pruned", model)

    def _add(self, variant: str, model: Decoder) -> None:
        texts = continuations(model, self._prompts, max_positions(model.config))
        for sample, text in zip(self._found, texts, strict=True):
            sample[variant] = text

    @property
    def complete(self) -> list[dict[str, str]]:
        """The prompts with all three texts; none where a model was streamed."""
        return [sample for sample in self._found if {"dense", "cut", "pruned"} <= set(sample)]
