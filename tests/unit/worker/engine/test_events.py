"""What the engine tells is small, finite and says what it belongs to."""

import json
import math

import pytest

from worker.engine.events import MOST_SCORES, Collected, Emitter, short_table


@pytest.mark.parametrize("layers", [1, 2, 24, 127, 128, 200, 5000])
def test_scores_are_short_and_no_more_than_an_event_carries(layers: int) -> None:
    table: list[list[float | None]] = [
        [0.98765432 if first + size < layers else None for size in range(layers)] for first in range(layers)
    ]
    shown = short_table(table)
    count = sum(map(len, shown))
    assert len(shown) == layers
    assert count <= max(MOST_SCORES, layers), "every layer has its own score at least"
    assert {score for row in shown for score in row} == {0.9877}
    if layers <= 127:
        assert count == layers * (layers + 1) // 2, "all of them"


def test_scores_and_choices_and_points_name_their_stage() -> None:
    sink = Collected()
    emit = Emitter(sink)
    emit.stage_started("score")
    emit.scores("perplexity", "lower", [[123456.7, None], [math.pi, None]])
    emit.selected([(3, 7)])
    emit.metric("mse", step=4, loss=math.nan)
    scores, selected, point = sink.events[1:]
    assert json.loads(json.dumps(scores))["table"] == [[123500.0, None], [3.142]]
    assert (scores["metric"], scores["better"], scores["stage"]) == ("perplexity", "lower", "score")
    assert selected["windows"] == [[3, 7]]
    assert (point["phase"], point["step"], point["loss"]) == ("mse", 4, None)
