"""Greedy continuations of a few prompts, so that a person sees what a number like perplexity hides."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import GenerationConfig

from worker.engine.decoder import Decoder

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
