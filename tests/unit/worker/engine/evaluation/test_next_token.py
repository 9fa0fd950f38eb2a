"""The divergence of next-token distributions is what all logits of both models side by side give."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from worker.engine.decoder import Decoder
from worker.engine.evaluation import next_token
from worker.engine.evaluation.next_token import NextToken


def states(decoder: Decoder, windows: Tensor) -> Tensor:
    found: list[Tensor] = []
    decoder.last_states(windows, len(windows), lambda _, __, hidden: found.append(hidden))
    return found[0]


@pytest.mark.parametrize("tokens", [40, 4096])
def test_the_divergence_is_that_of_all_logits_in_whatever_pieces(
    llama: Decoder, ids: Tensor, tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(next_token, "TOKENS", tokens)
    monkeypatch.setattr(next_token, "_LOGIT_BYTES", 5 * 4 * 64)
    compared = NextToken(ids)
    rows = min(3, tokens // ids.shape[1])
    dense = states(llama, ids)
    for first in (0, 2, 0):  # as where a pass begins anew
        compared.keep(first, dense[first : first + 2])
    p = llama.logits(ids)[:rows].double().log_softmax(-1)
    with llama.with_layers(1, 3), llama.head() as head:
        pruned = states(llama, ids)
        for first in (0, 2, 0):
            compared.compare(head, first, pruned[first : first + 2])
        q = llama.logits(ids)[:rows].double().log_softmax(-1)
    found = compared.to_json()
    assert found["kl"] == pytest.approx(float((p.exp() * (p - q)).sum(-1).mean()), rel=1e-4)
    assert found["same_top"] == pytest.approx(float((p.argmax(-1) == q.argmax(-1)).double().mean()))
    assert found["tokens"] == rows * ids.shape[1]


def test_a_model_does_not_diverge_from_itself(llama: Decoder, ids: Tensor) -> None:
    compared = NextToken(ids, states(llama, ids))
    with llama.head() as head:
        compared.compare(head, 0, states(llama, ids))
    assert compared.to_json() == {"kl": 0.0, "same_top": 1.0, "tokens": ids.numel()}
    assert torch.equal(torch.as_tensor(compared.states), states(llama, ids))
