"""What adaptive sampling promises: as few sequences as tell the best window, never fewer than the floor."""

from __future__ import annotations

import torch

from tests.unit.worker.engine.tiny_models import LAYERS
from worker.engine.decoder import Decoder
from worker.engine.scoring import METRICS
from worker.engine.scoring.metric import Candidates
from worker.engine.scoring.sampling import FLOOR, ScoreTable, score_windows

IDS = torch.randint(2, 64, (40, 12), generator=torch.Generator().manual_seed(3))
ALL = Candidates(1, tuple(range(LAYERS)))


def adaptive(decoder: Decoder, candidates: Candidates = ALL, sequences: int = 40, batch: int = 3) -> ScoreTable:
    return score_windows(decoder, IDS[:sequences], batch, candidates=candidates, adaptive=True, seed=0)


def test_scoring_ends_once_the_best_window_is_told_from_the_runner_up(decoder: Decoder) -> None:
    table = adaptive(decoder)
    assert len(table.sequences) in (8, 32, 40)
    assert table.separation is not None
    if len(table.sequences) < 40:
        assert table.separation.separated
        assert f"{len(table.sequences)} sequences separate" in table.stopped
    else:
        assert table.stopped == "all 40 sequences were scored"


def test_the_scored_sequences_are_the_first_ones_whatever_the_batch(llama: Decoder) -> None:
    one, other = adaptive(llama, batch=3), adaptive(llama, batch=32)
    assert len(one.sequences) == len(other.sequences)
    full = score_windows(llama, IDS[: len(one.sequences)], 8)
    torch.testing.assert_close(one.mean(), full.mean())
    assert one.stopped == other.stopped


def test_a_named_window_needs_the_floor_alone(llama: Decoder) -> None:
    table = adaptive(llama, Candidates(2, (1,)))
    assert len(table.sequences) == FLOOR
    assert "one window to choose from" in table.stopped


def test_windows_that_cannot_be_told_apart_take_all_sequences(llama: Decoder) -> None:
    table = adaptive(llama, Candidates(1, (2, 2)))
    assert len(table.sequences) == 40
    assert table.separation is not None
    assert not table.separation.separated


def test_fewer_sequences_than_the_floor_are_all_scored(llama: Decoder) -> None:
    assert len(adaptive(llama, sequences=5).sequences) == 5


def test_without_it_all_are_scored_and_nothing_is_compared(llama: Decoder) -> None:
    table = score_windows(llama, IDS, 16, candidates=ALL)
    assert (len(table.sequences), table.separation) == (40, None)


def test_a_metric_that_runs_every_window_samples_adaptively_too(llama: Decoder) -> None:
    table = score_windows(
        llama, IDS, 8, metric=METRICS["perplexity"], candidates=Candidates(2, (1, 2)), adaptive=True, seed=0
    )
    assert table.separation is not None
    assert {table.separation.best, table.separation.runner_up} == {1, 2}


def test_progress_tells_done_and_all(llama: Decoder) -> None:
    told: list[tuple[int, int]] = []
    score_windows(llama, IDS[:10], 4, lambda done, total: told.append((done, total)))
    assert told == [(4, 10), (8, 10), (10, 10)]
