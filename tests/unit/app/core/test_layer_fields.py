"""Every field of a config that lists or counts layers follows a cut."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.architectures import ArchitectureError
from app.core.layer_fields import PERIODS, RULES, cut_layer_fields, kept_layers

LAYERS = 8


def config(**fields: Any) -> dict[str, Any]:
    return {"model_type": "llama", "num_hidden_layers": LAYERS, **fields}


def cut(start: int, end: int, fields: dict[str, Any], *, inserted: int = 0) -> dict[str, Any]:
    return cut_layer_fields(config(**fields), kept_layers(start, end, LAYERS, inserted=inserted))


@pytest.mark.parametrize("name", ["layer_types", "mlp_layer_types", "no_rope_layers"])
def test_a_list_with_one_entry_per_layer_loses_those_of_the_window(name: str) -> None:
    assert cut(2, 5, {name: list("abcdefgh")}) == {name: list("abfgh")}
    assert cut(2, 5, {name: list("abcdefgh")}, inserted=1) == {name: list("abcfgh")}


@pytest.mark.parametrize("name", ["first_k_dense_replace", "max_window_layers"])
def test_a_number_of_first_layers_counts_those_that_are_left(name: str) -> None:
    assert cut(1, 3, {name: 2}) == {name: 1}
    assert cut(1, 3, {name: 2}, inserted=1) == {name: 2}
    assert cut(0, 3, {name: 2}) == {name: 0}
    assert cut(4, 6, {name: 2}) == {name: 2}
    assert cut(4, 6, {name: 8}) == {name: 6}, "all of them, before and after: two cuts end as one"
    assert cut(4, 6, {name: 28}) == {name: 28}, "more than there are stays more than there are"


def test_numbers_of_layers_are_numbered_anew() -> None:
    assert cut(2, 4, {"moe_layers": [1, 3, 5, 7]}) == {"moe_layers": [1, 3, 5]}
    assert cut(1, 4, {"moe_layers": [1, 3, 5, 7]}, inserted=1) == {"moe_layers": [1, 3, 5]}


@given(
    start=st.integers(0, LAYERS - 1),
    size=st.integers(1, LAYERS - 1),
    inserted=st.integers(0, 1),
    step=st.integers(1, 4),
    dense=st.sets(st.integers(0, LAYERS - 1)),
)
def test_the_same_layers_have_experts_after_any_cut(
    start: int, size: int, inserted: int, step: int, dense: set[int]
) -> None:
    def experts(step: int, dense: list[int], layers: int) -> list[bool]:
        return [layer not in dense and (layer + 1) % step == 0 for layer in range(layers)]

    kept = kept_layers(start, min(start + size, LAYERS), LAYERS, inserted=inserted)
    before = experts(step, sorted(dense), LAYERS)
    changed = cut_layer_fields(config(decoder_sparse_step=step, mlp_only_layers=sorted(dense)), kept)
    after = experts(changed["decoder_sparse_step"], changed["mlp_only_layers"], len(kept))
    assert after == [before[layer] for layer in kept]


@pytest.mark.parametrize(("period", "explicit"), PERIODS.items())
def test_a_period_gives_way_to_the_list_or_is_refused(period: str, explicit: str) -> None:
    listed = [1, 3] if explicit == "moe_layers" else list("abababab")
    assert cut(0, 1, {period: 2, explicit: listed})[period] is None
    assert cut(0, 1, {period: 1}) == {}
    assert cut(0, 0, {period: 2}) == {}
    with pytest.raises(ArchitectureError, match=f"{period}.*{explicit}"):
        cut(0, 1, {period: 2})


def test_heads_for_further_tokens_are_left_out() -> None:
    assert cut(0, 1, {"num_nextn_predict_layers": 1}) == {"num_nextn_predict_layers": 0}


@pytest.mark.parametrize("value", [list("abc"), "abababab", 3])
def test_a_list_of_another_length_is_refused_by_name(value: object) -> None:
    with pytest.raises(ArchitectureError, match=r"layer_types must list one entry per layer \(8\)"):
        cut(0, 1, {"layer_types": value})


def test_a_list_per_layer_that_no_rule_is_known_for_is_refused_by_name() -> None:
    with pytest.raises(ArchitectureError, match="attn_type_list has one entry per layer"):
        cut(0, 1, {"attn_type_list": [0, 1] * 4})
    assert cut(0, 1, {"eos_token_id": list(range(8)), "sizes": [1, 2, 3]}) == {}


def test_a_frequency_of_experts_is_a_list_or_every_layer() -> None:
    assert cut(0, 6, {"moe_layer_freq": [0, 1, 1, 1, 1, 1, 0, 1]}) == {"moe_layer_freq": [0, 1]}
    assert cut(0, 6, {"moe_layer_freq": 1}) == {}
    with pytest.raises(ArchitectureError, match="moe_layer_freq is 2"):
        cut(0, 6, {"moe_layer_freq": 2})


def test_a_config_without_such_fields_stays_as_it_is() -> None:
    assert cut(2, 5, {}) == {}
    assert set(PERIODS) < set(RULES)
