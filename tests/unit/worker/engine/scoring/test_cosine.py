"""What the score table promises."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.unit.worker.engine.tiny_models import LAYERS
from worker.engine.decoder import Decoder
from worker.engine.errors import EngineError
from worker.engine.scoring import cosine
from worker.engine.scoring.cosine import CosineTable, score_windows


def plain(decoder: Decoder, ids: Tensor) -> list[list[float | None]]:
    """The definition, one pair at a time, in float64."""
    states = [h.double() for h in decoder.hidden_states(ids)]
    return [
        [
            torch.cosine_similarity(states[i], states[i + n], dim=-1).mean().item() if i + n <= LAYERS else None
            for n in range(1, LAYERS + 1)
        ]
        for i in range(LAYERS)
    ]


def assert_tables_equal(mine: list[list[float | None]], theirs: list[list[float | None]]) -> None:
    assert len(mine) == len(theirs)
    for row, expected in zip(mine, theirs, strict=True):
        assert row == pytest.approx(expected, abs=1e-6)


def test_every_window_of_every_size_has_the_mean_cosine_of_its_ends(decoder: Decoder, ids: Tensor) -> None:
    assert_tables_equal(score_windows(decoder, ids, batch_size=2).scores(), plain(decoder, ids))


def test_long_windows_in_pieces_give_the_same_table(
    llama: Decoder, ids: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = score_windows(llama, ids, batch_size=3).scores()
    monkeypatch.setattr(cosine, "_TOKENS_PER_PRODUCT", 5)
    assert_tables_equal(score_windows(llama, ids, batch_size=3).scores(), whole)


def test_padding_never_counts(decoder: Decoder, ids: Tensor) -> None:
    mask = torch.ones_like(ids)
    mask[1, 5:] = 0
    padded, separate = CosineTable(), CosineTable()
    padded.add(decoder, ids, mask)
    for row, length in ((0, 12), (1, 5), (2, 12)):
        separate.add(decoder, ids[row : row + 1, :length])
    assert padded.tokens == [12, 5, 12]
    torch.testing.assert_close(padded.mean(), separate.mean(), atol=1e-5, rtol=1e-5)


def test_each_sequence_keeps_its_own_table_for_a_bootstrap(llama: Decoder, ids: Tensor) -> None:
    table = score_windows(llama, ids, batch_size=3)
    assert len(table.sequences) == 3
    assert table.sequences[0].shape == (LAYERS + 1, LAYERS + 1)
    assert table.sequences[0].dtype == torch.float64


def test_a_broken_layer_is_named(llama: Decoder, ids: Tensor) -> None:
    with torch.no_grad():
        llama.layers[2].get_parameter("mlp.down_proj.weight").fill_(float("nan"))
    with pytest.raises(EngineError, match="before layer 3") as caught:
        score_windows(llama, ids, batch_size=3)
    assert caught.value.code == "not_finite"


def test_a_zero_state_scores_zero_and_not_nan(llama: Decoder, ids: Tensor) -> None:
    with torch.no_grad():
        llama.model.get_parameter("model.embed_tokens.weight").zero_()
    scores = score_windows(llama, ids, batch_size=3).scores()
    assert scores[0][0] == 0.0
