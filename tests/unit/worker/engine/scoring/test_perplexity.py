"""What the perplexity of each cut promises: that of the model without the window, for the wanted windows alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.unit.worker.engine.tiny_models import LAYERS
from worker.engine.decoder import Decoder
from worker.engine.errors import EngineError
from worker.engine.scoring import perplexity
from worker.engine.scoring.metric import Candidates
from worker.engine.scoring.sampling import score_windows
from worker.engine.streamed import load_streamed


def test_each_wanted_window_has_the_perplexity_of_the_model_without_it(decoder: Decoder, ids: Tensor) -> None:
    table = score_windows(decoder, ids, 2, metric=perplexity.METRIC, candidates=Candidates(2, (1, 3))).scores()
    for start in (1, 3):
        with decoder.with_layers(start, start + 2):
            logits = decoder.logits(ids)[:, :-1].double()
        nats = torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())
        assert table[start][1] == pytest.approx(nats.exp().item(), rel=1e-4)
    scored = [(i, n + 1) for i in range(LAYERS) for n in range(LAYERS) if table[i][n] is not None]
    assert scored == [(1, 2), (3, 2)]


def test_streamed_layers_are_refused_with_what_would_work(
    tiny_directory: Callable[[str], Path], tmp_path: Path
) -> None:
    streamed = load_streamed(tiny_directory("llama"), "cpu", tmp_path)
    for metric in ("perplexity", "task"):
        with pytest.raises(EngineError, match="use cosine") as caught:
            perplexity.whole(streamed, metric)
        assert caught.value.code == "needs_resident"
