"""What the defaults promise: they always fit the model."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from app.core import defaults
from tests.unit.app.core.configs import LLAMA_2_7B


@given(st.integers(3, 200_000))
def test_default_benchmark_and_sequence_lengths_fit_the_positions(positions: int) -> None:
    config = LLAMA_2_7B | {"max_position_embeddings": positions}
    prompt, new = defaults.benchmark_tokens(config)
    assert prompt >= 1
    assert new >= 2
    assert defaults.benchmark_problem(config, prompt, new) is None
    assert defaults.sequence_length(config) == min(2048, positions)


def test_the_bundled_model_gets_the_windows_that_it_was_trained_on() -> None:
    config = LLAMA_2_7B | {"max_position_embeddings": 512}
    assert defaults.sequence_length(config, "demo/stories-24l") == 256
    assert defaults.sequence_length(config, "stories-24l") == 256
    assert defaults.sequence_length(config, "team/other") == 512


def test_benchmark_values_that_do_not_fit_are_named() -> None:
    problem = defaults.benchmark_problem(LLAMA_2_7B, 4096, 1)
    assert problem is not None
    assert "4096 positions" in problem[1]


def test_narrow_models_get_a_higher_learning_rate_up_to_a_cap() -> None:
    assert defaults.learning_rate(LLAMA_2_7B) == defaults.learning_rate(LLAMA_2_7B | {"hidden_size": 4096})
    assert defaults.learning_rate(LLAMA_2_7B | {"hidden_size": 128}) > defaults.learning_rate(LLAMA_2_7B)
    assert defaults.learning_rate(LLAMA_2_7B | {"hidden_size": 1}) < 1e-2


def test_the_batch_holds_at_least_one_sequence() -> None:
    assert defaults.batch_size(256) == 8
    assert defaults.batch_size(100_000) == 1


def test_text_from_the_model_itself_is_short() -> None:
    assert defaults.training_tokens("builtin:self") == 131_072
    assert defaults.training_tokens("data.jsonl") > 131_072
