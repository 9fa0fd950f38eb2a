"""What the perplexity of each cut promises: that of the model without the window, for the wanted windows alone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.unit.worker.engine.tiny_models import LAYERS
from worker.engine.decoder import Decoder
from worker.engine.scoring import perplexity
from worker.engine.scoring.metric import Candidates
from worker.engine.scoring.sampling import score_windows


def test_each_wanted_window_has_the_perplexity_of_the_model_without_it(decoder: Decoder, ids: Tensor) -> None:
    table = score_windows(decoder, ids, 2, metric=perplexity.METRIC, candidates=Candidates(2, (1, 3))).scores()
    for start in (1, 3):
        with decoder.with_layers(start, start + 2):
            logits = decoder.logits(ids)[:, :-1].double()
        nats = torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())
        assert table[start][1] == pytest.approx(nats.exp().item(), rel=1e-4)
    scored = [(i, n + 1) for i in range(LAYERS) for n in range(LAYERS) if table[i][n] is not None]
    assert scored == [(1, 2), (3, 2)]


def test_padding_neither_is_predicted_nor_predicts(llama: Decoder, ids: Tensor) -> None:
    mask = torch.ones_like(ids)
    mask[1, 5:] = 0
    padded, tokens = perplexity.losses(llama, ids, mask)
    assert tokens.tolist() == [11, 4, 11]
    torch.testing.assert_close(padded[1], perplexity.losses(llama, ids[1:2, :5])[0][0])
