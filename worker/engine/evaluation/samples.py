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


def prompts_of(windows: Tensor, count: int = 2) -> list[Tensor]:
    """Return the beginnings [1, tokens] of `count` windows, spread evenly over `windows` [count, length]."""
    length = min(PROMPT_TOKENS, max(1, windows.shape[1] // 2))
    step = max(1, len(windows) // count)
    return [windows[index : index + 1, :length] for index in range(0, len(windows), step)][:count]


@torch.inference_mode()
def continuation(decoder: Decoder, prompt: Tensor, positions: int) -> str:
    """Return the text of at most `NEW_TOKENS` greedy tokens after `prompt` [1, tokens]."""
    ids = prompt.to(decoder.device, torch.long)
    tokenizer = decoder.tokenizer
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    greedy = GenerationConfig(
        do_sample=False,
        max_new_tokens=max(1, min(NEW_TOKENS, positions - ids.shape[1])),
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=pad if pad is not None else 0,
    )
    model = decoder.model
    out = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=greedy)  # type: ignore[operator]
    text: str = tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)
    return text


class Samples:
    """Continuations of the same prompts by the dense, the cut and the pruned model; only resident models make them."""

    def __init__(self, windows: Tensor, tokenizer: Any) -> None:
        self._prompts = prompts_of(windows)
        self._found = [{"prompt": tokenizer.decode(prompt[0], skip_special_tokens=True)} for prompt in self._prompts]

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
        for prompt, sample in zip(self._prompts, self._found, strict=True):
            sample[variant] = continuation(model, prompt, max_positions(model.config))

    @property
    def complete(self) -> list[dict[str, str]]:
        """The prompts with all three texts; none where a model was streamed."""
        return [sample for sample in self._found if {"dense", "cut", "pruned"} <= set(sample)]
