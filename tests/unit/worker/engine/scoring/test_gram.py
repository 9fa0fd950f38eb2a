"""What the metrics of one pass promise: their definitions, for every window of every size."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from tests.unit.worker.engine.tiny_models import LAYERS
from worker.engine.decoder import Decoder
from worker.engine.errors import EngineError
from worker.engine.scoring import METRICS
from worker.engine.scoring.sampling import score_windows

Pair = Callable[[Tensor, Tensor], Tensor]


def cosines(a: Tensor, b: Tensor) -> Tensor:
    return torch.cosine_similarity(a, b, dim=-1)


DEFINITIONS: dict[str, Pair] = {
    "cosine": cosines,
    "angular": lambda a, b: cosines(a, b).arccos() / math.pi,
    "euclidean": lambda a, b: (a - b).norm(dim=-1),
    "dot": lambda a, b: (a * b).sum(-1),
}


def plain(decoder: Decoder, ids: Tensor, pair: Pair) -> list[list[float | None]]:
    """The definition, one pair at a time, in float64."""
    states = [h.double() for h in decoder.hidden_states(ids)]
    return [
        [pair(states[i], states[i + n]).mean().item() if i + n <= LAYERS else None for n in range(1, LAYERS + 1)]
        for i in range(LAYERS)
    ]


def assert_tables_equal(mine: list[list[float | None]], theirs: list[list[float | None]]) -> None:
    assert [[value is None for value in row] for row in mine] == [[value is None for value in row] for row in theirs]
    found, expected = ([value for row in table for value in row if value is not None] for table in (mine, theirs))
    assert found == pytest.approx(expected, abs=2e-6, rel=1e-4)


@pytest.mark.parametrize("metric", DEFINITIONS)
def test_every_window_of_every_size_is_scored_by_the_definition(decoder: Decoder, ids: Tensor, metric: str) -> None:
    table = score_windows(decoder, ids, batch_size=2, metric=METRICS[metric])
    assert_tables_equal(table.scores(), plain(decoder, ids, DEFINITIONS[metric]))


@pytest.mark.parametrize("metric", DEFINITIONS)
def test_scores_stay_exact_where_the_model_computes_in_bfloat16(llama: Decoder, ids: Tensor, metric: str) -> None:
    # All sequences at once, as the definition takes them: a kernel may round another shape's products otherwise.
    with torch.autocast("cpu", torch.bfloat16):
        table = score_windows(llama, ids, batch_size=len(ids), metric=METRICS[metric])
        expected = plain(llama, ids, DEFINITIONS[metric])
    assert_tables_equal(table.scores(), expected)


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


def test_every_metric_of_the_contract_is_there_with_its_paper() -> None:
    assert list(METRICS) == ["cosine", "angular", "euclidean", "dot", "perplexity", "task"]
    assert all("arXiv" in metric.paper for metric in METRICS.values())
    assert [name for name, metric in METRICS.items() if metric.better == "higher"] == ["cosine", "dot"]
