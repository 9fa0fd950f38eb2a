"""What a job needs of a GPU: the numbers of real models, and what never goes down."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.architectures import BLOCK_KINDS, block_parameters
from app.core.device_memory import DeviceMemory, card_bytes, device_memory
from app.core.selection import ParameterCounts
from tests.unit.app.core.configs import LLAMA_2_7B

LLAMA_3_70B: dict[str, Any] = {
    "model_type": "llama", "hidden_size": 8192, "intermediate_size": 28672, "num_hidden_layers": 80,
    "num_attention_heads": 64, "num_key_value_heads": 8, "vocab_size": 128256, "max_position_embeddings": 8192,
    "tie_word_embeddings": False,
}  # fmt: skip


def of_layer(config: dict[str, Any], **more: Any) -> DeviceMemory:
    counts = ParameterCounts.from_config(config)
    return device_memory(config, counts, "layer", counts.per_layer[0], **more)


def test_a_7b_model_is_whole_on_a_card_of_24_gb_and_a_70b_model_on_none_of_80() -> None:
    assert of_layer(LLAMA_2_7B).whole / 1e9 == pytest.approx(13.48 + 4.05 + 0.5, abs=0.1), "weights, a block, CUDA"
    assert card_bytes(16) < of_layer(LLAMA_2_7B).whole < card_bytes(24)
    assert card_bytes(80) < of_layer(LLAMA_3_70B).whole < card_bytes(192)
    assert of_layer(LLAMA_3_70B).in_layers < card_bytes(24), "two layers, and one in training"


def test_what_trains_through_the_whole_model_needs_room_for_its_states() -> None:
    healed = of_layer(LLAMA_2_7B, through_model=True, length=2048)
    assert healed.whole - of_layer(LLAMA_2_7B).whole == 2048 * (32 * 4096 * 34 + 32000 * 10)


def test_a_model_too_large_for_every_card_runs_in_layers_on_the_largest() -> None:
    need, largest = of_layer(LLAMA_3_70B), card_bytes(80)
    assert need.required(must_be_whole=False, largest=largest) == largest
    assert need.required(must_be_whole=True, largest=largest) == need.whole, "it waits rather than fails"
    assert need.required(must_be_whole=False, largest=card_bytes(192)) == need.whole
    small = of_layer(LLAMA_2_7B)
    assert small.required(must_be_whole=False, largest=largest) == small.whole, "a smaller card would cost its speeds"


@given(
    layers=st.integers(2, 100),
    hidden=st.integers(8, 16384),
    kind=st.sampled_from(BLOCK_KINDS),
    through=st.booleans(),
    whole=st.booleans(),
    largest=st.integers(1, 10**12),
)
def test_a_job_in_layers_never_needs_more_than_a_whole_one_and_more_layers_never_less(
    layers: int, hidden: int, kind: Any, through: bool, whole: bool, largest: int
) -> None:
    config = LLAMA_2_7B | {"num_hidden_layers": layers, "hidden_size": hidden * 32}
    deeper = config | {"num_hidden_layers": layers + 1}
    counts = ParameterCounts.from_config(config)
    added = block_parameters(config, kind, "auto", counts.per_layer[0])
    needs = [
        device_memory(one, ParameterCounts.from_config(one), kind, added, through_model=through, length=512)
        for one in (config, deeper)
    ]
    assert 0 < needs[0].in_layers <= needs[0].whole < needs[1].whole
    required = needs[0].required(must_be_whole=whole, largest=largest)
    assert required >= needs[0].in_layers
    if not whole:
        assert required <= max(largest, needs[0].in_layers)
