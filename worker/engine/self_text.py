"""``builtin:self``: calibration text without any data, sampled from the model itself.

The idea is LLM-QAT's (arXiv 2305.17888): a model's own samples lie where its hidden states are at home. Many short
documents are drawn at once from the bare bos token, with a key-value cache; the text is kept under the model's hash, so
that the same model and seed never pay twice.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor
from transformers.cache_utils import DynamicCache, DynamicLayer

from app.core.architectures import size_of
from worker.engine.context import StageContext, write_bytes
from worker.engine.decoder import Decoder
from worker.engine.errors import EngineError
from worker.engine.execution import resident_model
from worker.engine.text import separator_token

DOCUMENT_TOKENS = 128
"""Tokens drawn per document. Attention over the cache is the slow half of sampling, and grows with the length."""

MOST_DOCUMENTS_AT_ONCE = 256
"""Beyond this many rows the matrix products gain nothing more on two cores, and the cache leaves the processor's."""

_CACHE_BYTES = 1 << 30
_FORMAT = "1"  # part of the cache's key: raise it when sampling changes


class _ReservedLayer(DynamicLayer):  # type: ignore[misc]  # transformers is not typed
    """One layer's keys and values in a buffer of their final size: growing by concatenation copies all, every step."""

    def __init__(self, length: int) -> None:
        super().__init__()
        self.length = length
        self.filled = 0
        self.buffers: tuple[Tensor, Tensor] | None = None

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Append [batch, heads, tokens, size] keys and values; return views of all so far."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        if self.buffers is None or self.buffers[0].shape[0] != key_states.shape[0]:
            batch, heads, _tokens, size = key_states.shape
            self.buffers = (
                key_states.new_empty((batch, heads, self.length, size)),
                value_states.new_empty((batch, heads, self.length, value_states.shape[-1])),
            )
        end = self.filled + key_states.shape[2]
        for buffer, new in zip(self.buffers, (key_states, value_states), strict=True):
            buffer[:, :, self.filled : end] = new
        self.filled = end
        self.keys, self.values = (buffer[:, :, :end] for buffer in self.buffers)
        return self.keys, self.values

    def rewind(self) -> None:
        """Forget the tokens and keep the buffers, for the next batch."""
        self.filled = 0
        if self.is_initialized:
            self.keys = self.values = self.keys[:, :, :0]


def documents_at_once(decoder: Decoder, length: int) -> int:
    """Return how many documents to draw in parallel, so that their cache stays within a gigabyte (at least 4)."""
    config = decoder.config
    width = size_of(config, "key") if "num_attention_heads" in config else size_of(config, "hidden")
    row = 2 * len(decoder.layers) * width * length * decoder.dtype.itemsize
    return max(4, min(MOST_DOCUMENTS_AT_ONCE, _CACHE_BYTES // row))


@torch.inference_mode()
def sample_documents(
    decoder: Decoder,
    tokens: int,
    seed: int,
    *,
    length: int = DOCUMENT_TOKENS,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[str]:
    """Draw about `tokens` tokens of text from the model at temperature 1, and yield the documents in it.

    Sampling goes on past an end-of-text token (the model starts a new document, as in its training data) and the
    result is split there.

    Args:
        decoder: the dense model.
        tokens: how many to draw in all.
        seed: same seed, same text (on one machine and device).
        length: tokens per drawn row, bos included.
        progress: told (done, total) tokens.

    Raises:
        EngineError: `no_start_token` where the tokenizer has neither bos nor eos to start from.
    """
    start = separator_token(decoder.tokenizer)
    if start is None:
        raise EngineError(
            "no_start_token", "builtin:self needs a bos or eos token to start from; name a calibration text instead"
        )
    length = min(length, tokens)
    rows_left = -(-tokens // length)
    rows = min(rows_left, documents_at_once(decoder, length))
    generator = torch.Generator().manual_seed(seed)
    cache = DynamicCache(config=decoder.model.config)
    cache.layers = [_ReservedLayer(length) for _ in decoder.layers]
    done = 0
    while rows_left > 0:
        rows = min(rows, rows_left)
        ids = torch.full((rows, length), start, dtype=torch.long)
        for layer in cache.layers:
            layer.rewind()
        for position in range(1, length):
            ids[:, position] = _next_tokens(decoder, ids[:, position - 1 : position], cache, generator)
            done += rows
            if progress:
                progress(min(done, tokens), tokens)
        done += rows
        rows_left -= rows
        yield from _texts(decoder.tokenizer, ids)


def _next_tokens(decoder: Decoder, last: Tensor, cache: Any, generator: torch.Generator) -> Tensor:
    """Draw one token per row by inverting the distribution function: one uniform number per row, not one per word."""
    logits = decoder.model(input_ids=last.to(decoder.device), past_key_values=cache, use_cache=True).logits[:, -1]
    cumulative = logits.float().softmax(-1).cumsum(-1)
    uniform = torch.rand((len(last), 1), generator=generator).to(cumulative.device)
    drawn = torch.searchsorted(cumulative, uniform * cumulative[:, -1:])
    return drawn.clamp_max_(cumulative.shape[-1] - 1)[:, 0].cpu()


def _texts(tokenizer: Any, ids: Tensor) -> Iterator[str]:
    ends = set(tokenizer.all_special_ids)
    for row in ids.tolist():
        piece: list[int] = []
        for token in [*row, None]:
            if token is not None and token not in ends:
                piece.append(token)
            elif piece:
                text: str = tokenizer.decode(piece)
                if text.strip():
                    yield text
                piece = []


def self_text_path(context: StageContext, model_hash: str, tokens: int, seed: int) -> Path:
    """Return where this model's sampled text is kept between runs.

    What computes is part of the key: another device or library draws other tokens, and a run's bytes may not depend on
    who filled the cache.
    """
    computes = f"{context.device}:{torch.__version__}:{transformers.__version__}"
    key = f"{_FORMAT}:{model_hash}:{tokens}:{seed}:{DOCUMENT_TOKENS}:{computes}"
    return context.cache / "self-text" / f"{hashlib.sha256(key.encode()).hexdigest()}.jsonl"


def ensure_self_text(context: StageContext, model_hash: str) -> None:
    """Put the sampled text into the workspace as JSONL rows ``{"text": ...}``, from the cache where it is there.

    Raises:
        EngineError: `needs_resident` where the model is streamed: each token of a row would read all weights anew.
    """
    tokens, seed = context.recipe.replacement.tokens, context.seed("self-text")
    kept = self_text_path(context, model_hash, tokens, seed)
    if not kept.is_file():
        context.emit.log(f"sampling {tokens} tokens of calibration text from the model itself")
        documents = sample_documents(
            resident_model(context, "builtin:self (name a calibration text instead)"),
            tokens,
            seed,
            progress=lambda done, total: context.emit.progress(done, total, "sampled tokens"),
        )
        rows = "".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in documents)
        write_bytes(kept, rows.encode())
    write_bytes(context.self_text, kept.read_bytes())
