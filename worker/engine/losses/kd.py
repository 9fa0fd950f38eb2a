"""`kd`: the pruned model's next-token distribution is pulled towards the dense model's.

The dense model's logits are made from the stored h_end by the same layers, so that the teacher costs one pass through
the tail and no second model.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from worker.engine.losses.objective import Batch, Tail
from worker.engine.recipe import Divergence

SKEW = 0.1
"""Share of the other distribution in the mixture (DistiLLM, arXiv 2402.03898, section 3.1)."""


class Distillation:
    """Mean over tokens of a Kullback-Leibler divergence between p (dense) and q (pruned), in nats.

    `forward` is KL(p || q), `reverse` KL(q || p), `skewed_forward` KL(p || a p + (1 - a) q) and `skewed_reverse`
    KL(q || (1 - a) p + a q) with a = `SKEW`.
    """

    def __init__(self, tail: Tail, divergence: Divergence = "forward") -> None:
        self._tail = tail
        self._divergence = divergence

    def __call__(self, made: Tensor, batch: Batch) -> Tensor:
        """Return the mean over all tokens of the batch."""
        with torch.no_grad():
            p = self._tail(batch.after).float().log_softmax(-1)
        q = self._tail(made).float().log_softmax(-1)
        match self._divergence:
            case "forward":
                return _kl(p, q)
            case "reverse":
                return _kl(q, p)
            case "skewed_forward":
                return _kl(p, _mixture(p, q))
            case "skewed_reverse":
                return _kl(q, _mixture(q, p))


def _kl(p: Tensor, q: Tensor) -> Tensor:
    """Mean over tokens of KL(p || q) for log probabilities [batch, sequence, vocabulary]."""
    return (p.exp() * (p - q)).sum(-1).mean()


def _mixture(p: Tensor, q: Tensor) -> Tensor:
    """Log of a p + (1 - a) q for log probabilities."""
    return torch.logaddexp(p + math.log(SKEW), q + math.log(1 - SKEW))
