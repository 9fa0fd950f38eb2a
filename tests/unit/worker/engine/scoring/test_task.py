"""What ranking by task promises: the best few by cosine, judged by the patched model on text it was not fitted on."""

from __future__ import annotations

import pytest
import torch

from tests.unit.worker.engine.tiny_models import LAYERS
from worker.engine.decoder import Decoder
from worker.engine.replacements import linear_residual
from worker.engine.scoring import cosine, task
from worker.engine.scoring.metric import Candidates
from worker.engine.scoring.perplexity import losses
from worker.engine.scoring.sampling import score_windows

IDS = torch.randint(2, 64, (16, 12), generator=torch.Generator().manual_seed(3))


def test_only_the_best_few_by_cosine_are_ranked(llama: Decoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task, "SHORTLIST", 2)
    candidates = Candidates(1, tuple(range(LAYERS)))
    by_cosine = score_windows(llama, IDS, 8, metric=cosine.METRIC)
    table = task.rerank(llama, IDS, 8, by_cosine, candidates).scores()
    ranked = {start for start in range(LAYERS) if table[start][0] is not None}
    scores = by_cosine.scores()
    assert ranked == set(sorted(range(LAYERS), key=lambda start: -(scores[start][0] or 0))[:2])


def test_a_window_has_the_perplexity_of_the_patched_model_on_the_judging_text(llama: Decoder) -> None:
    by_cosine = score_windows(llama, IDS, 8, metric=cosine.METRIC)
    table = task.rerank(llama, IDS, 5, by_cosine, Candidates(2, (1,))).scores()
    judging = torch.arange(16) % 4 == 3
    tensors, _ = linear_residual.fit(llama, IDS[~judging], 1, 3, 8)
    with llama.with_layers(1, 3, linear_residual.block_of(tensors, llama.device, llama.dtype)):
        expected = losses(llama, IDS[judging]).mean().exp().item()
    assert table[1][1] == pytest.approx(expected, rel=1e-4)


def test_one_sequence_is_enough(llama: Decoder) -> None:
    by_cosine = score_windows(llama, IDS[:1], 8, metric=cosine.METRIC)
    assert task.rerank(llama, IDS[:1], 8, by_cosine, Candidates(2, (1,))).scores()[1][1] is not None
