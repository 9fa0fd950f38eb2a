"""Perplexity of a causal language model over windows of tokens, in bounded memory.

Two normalisations of one sum: per predicted token, which compares models that share a tokenizer, and per UTF-8 byte of
the predicted text, which compares any two. The head is applied to a few hundred positions at a time, so that logits
[batch, sequence, vocabulary] in float32 never exist as a whole.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from worker.engine.events import finite
from worker.engine.head import Head
from worker.engine.hidden_states import LayeredModel, Layers

Watch = Callable[[str, int, Tensor, Head], None]
"""Called with `dense` or `cut`, a batch's first sequence, what the head is applied to, and the head."""

_LARGEST_EXPONENT = 709.0  # of a float64
# Float32 logits that exist at one time.
_LOGIT_BYTES = 64 << 20


@dataclass
class LogLikelihood:
    """Negative log-likelihood of a text.

    Attributes:
        window_nats: each window's sum over its predicted tokens, in nats.
        window_tokens: how many those are.
        text_bytes: UTF-8 bytes of the text of all of them.
    """

    window_nats: list[float] = field(default_factory=list)
    window_tokens: list[int] = field(default_factory=list)
    text_bytes: int = 0

    @property
    def nats(self) -> float:
        """The sum over all windows."""
        return math.fsum(self.window_nats)

    @property
    def tokens(self) -> int:
        """The predicted tokens of all windows."""
        return sum(self.window_tokens)

    @property
    def perplexity(self) -> float | None:
        """exp of the mean per token; None where it is not a finite number."""
        return _exp(self.nats / max(self.tokens, 1))

    @property
    def byte_perplexity(self) -> float | None:
        """exp of the mean per UTF-8 byte; None where it is not a finite number."""
        return _exp(self.nats / max(self.text_bytes, 1))

    def add(self, nats: Tensor, tokens: Tensor) -> None:
        """Take in the windows of a batch: the sums [batch] and counts [batch] of `negative_log_likelihood`."""
        self.window_nats += nats.tolist()
        self.window_tokens += tokens.tolist()


@torch.inference_mode()
def negative_log_likelihood(
    head: Callable[[Tensor], Tensor],
    hidden: Tensor,
    input_ids: Tensor,
    attention_mask: Tensor | None = None,
    *,
    given: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Return each row's summed negative log-likelihood in nats of tokens given those before them, and their number.

    Both are [batch] and on CPU, float64 and int64.

    Args:
        head: maps hidden states to logits.
        hidden: [batch, sequence, hidden], after the final norm, in the compute dtype.
        input_ids: [batch, sequence]. The first token of a row is context only.
        attention_mask: [batch, sequence], 0 for padding, which neither is predicted nor predicts.
        given: [batch], tokens at the start of each row that are context only; 1 each where it is left out.
    """
    wanted = torch.ones_like(input_ids[:, 1:], dtype=torch.bool)
    if given is not None:
        places = torch.arange(1, input_ids.shape[1], device=input_ids.device)
        wanted &= places >= given.to(input_ids.device)[:, None]
    if attention_mask is not None:
        wanted &= (attention_mask[:, 1:] * attention_mask[:, :-1]).bool()
    states, targets = hidden[:, :-1][wanted], input_ids[:, 1:][wanted]
    counts = wanted.sum(1).cpu()
    total = torch.zeros(len(input_ids), dtype=torch.float64)
    if len(targets) == 0:
        return total, counts
    rows = torch.arange(len(input_ids)).repeat_interleave(counts)
    vocabulary = head(states[:1]).shape[-1]
    step = max(1, _LOGIT_BYTES // (4 * vocabulary))
    for start in range(0, len(targets), step):
        logits = head(states[start : start + step]).float()
        losses = nn.functional.cross_entropy(logits, targets[start : start + step], reduction="none")
        total.index_add_(0, rows[start : start + step], losses.double().cpu())
    return total, counts


def likelihoods(
    model: LayeredModel,
    batch_size: int,
    *,
    windows: Tensor,
    progress: Callable[[int], None],
    cut: Layers | None = None,
    watch: Watch | None = None,
    given: Tensor | None = None,
) -> dict[str, LogLikelihood]:
    """Return the likelihood of token windows [sequences, length] as `dense`, and as `cut` where that is asked for.

    Args:
        model: what predicts them.
        batch_size: sequences at a time.
        windows: token ids without padding.
        progress: told the number of sequences done since the last call.
        cut: predict them without these layers too.
        watch: shown every batch.
        given: [sequences], tokens at the start of each window that are context only; 1 each where it is left out.
    """
    sums = {name: LogLikelihood() for name in (("dense",) if cut is None else ("dense", "cut"))}
    with ExitStack() as until_done:
        heads: list[Head] = []

        def visit(variant: str, first: int, hidden: Tensor) -> None:
            if not heads:  # not before: a streamed model's layers have gone by then
                heads.append(until_done.enter_context(model.head()))
            ids = windows[first : first + len(hidden)].to(hidden.device, torch.long)
            context_only = None if given is None else given[first : first + len(hidden)]
            sums[variant].add(*negative_log_likelihood(heads[0], hidden, ids, given=context_only))
            if watch is not None:
                watch(variant, first, hidden, heads[0])
            progress(len(ids))

        model.last_states(windows, batch_size, visit, cut=cut)
    return sums


def text_bytes(windows: Tensor, tokenizer: Any, given: Tensor) -> int:
    """Return the UTF-8 bytes of the text that the predicted tokens of `windows` [count, length] stand for.

    Special tokens (the separators between documents) are predicted but have no text; the first `given` [count] tokens
    of each window are context only.
    """

    def size(ids: Iterable[int]) -> int:
        return len(tokenizer.decode(list(ids), skip_special_tokens=True).encode())

    return sum(size(row) - size(row[:first]) for row, first in zip(windows.tolist(), given.tolist(), strict=True))


def ratio(a: float | None, b: float | None) -> float | None:
    """Return a / b, or None where either perplexity is unknown or the quotient is not a finite number."""
    return None if a is None or b is None else finite(a / b)


def _exp(value: float) -> float | None:
    # A broken model gives NaN or exceeds a float's range, and JSON has neither.
    return math.exp(value) if math.isfinite(value) and value < _LARGEST_EXPONENT else None
