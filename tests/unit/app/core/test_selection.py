"""What the planner promises: the closest window, and a reason whenever there is none."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.architectures import (
    BLOCK_KINDS,
    BlockKind,
    NativeFormRefused,
    ReplacementRefused,
    block_parameters,
    layer_parameters,
)
from app.core.plan import make_plan
from app.core.selection import (
    ParameterCounts,
    SelectionError,
    Target,
    blocks_added,
    first_start,
    window_size,
)
from app.core.windows import best_window
from tests.unit.app.core.configs import LLAMA_2_7B, OPT_125M, OPT_350M, QWEN2_0_5B

KINDS = st.sampled_from(BLOCK_KINDS)


@pytest.mark.parametrize(
    ("kind", "form", "removed", "percent"),
    [
        ("none", "auto", 8, 24.0),
        ("ffn", "auto", 9, 25.0),
        ("swiglu", "auto", 9, 25.0),
        ("layer", "auto", 9, 24.0),
        ("swiglu", "native", 9, 24.0),
        ("linear_merged", "auto", 8, 24.0),
        ("linear_residual", "auto", 8, 23.8),
    ],
)
def test_llama_2_7b_at_a_quarter_is_as_the_paper_has_it(
    kind: BlockKind, form: Any, removed: int, percent: float
) -> None:
    plan = make_plan(LLAMA_2_7B, Target(sparsity=0.25), kind, form).to_json()
    assert plan["removed_count"] == removed
    assert round(100 * plan["sparsity"], 1) == percent
    assert plan["removed_layers"] is None
    assert plan["parameters"]["dense"] == 6_738_415_616
    assert (
        plan["parameters"]["pruned"]
        == 6_738_415_616 - removed * layer_parameters(LLAMA_2_7B) + plan["added_parameters"]
    )


@given(st.floats(0, 1, exclude_min=True, exclude_max=True), KINDS, st.integers(1, 5), st.integers(2, 60))
def test_no_other_window_is_closer_to_the_target(sparsity: float, kind: BlockKind, new: int, layers: int) -> None:
    config = QWEN2_0_5B | {"num_hidden_layers": layers}
    new = new if kind == "layer" else 1
    try:
        size = window_size(config, Target(sparsity=sparsity), kind, layers=new)
    except SelectionError as error:
        assert error.pointer == "/target/sparsity"  # noqa: PT017 - only what is refused has a pointer
        return
    assert layers - size.removed_count + size.blocks_added >= 2
    assert layers - size.removed_count >= 1
    assert size.removed_count >= size.blocks_added == blocks_added(kind, new)
    assert 0 < size.sparsity < 1
    per_layer, dense = layer_parameters(config), size.dense_parameters
    for other in range(1, layers + 1):
        net = (other * per_layer - size.added_parameters) / dense
        if net > 0:
            assert abs(size.sparsity - sparsity) <= abs(net - sparsity) + 1e-12


@given(st.integers(-5, 70), KINDS, st.integers(1, 5), st.integers(2, 60))
def test_layers_fewer_is_exactly_what_comes_out(fewer: int, kind: BlockKind, new: int, layers: int) -> None:
    config = LLAMA_2_7B | {"num_hidden_layers": layers}
    new = new if kind == "layer" else 1
    if not 1 <= fewer <= layers - max(2, blocks_added(kind, new) + 1):
        with pytest.raises(SelectionError, match="layers is"):
            window_size(config, Target(layers=fewer), kind, layers=new)
        return
    size = window_size(config, Target(layers=fewer), kind, layers=new)
    assert size.added_parameters == new * block_parameters(config, kind)
    assert layers - size.removed_count + size.blocks_added == layers - fewer


@given(st.integers(-3, 40), st.integers(-3, 40), KINDS)
def test_a_window_is_taken_as_given_or_refused(start: int, end: int, kind: BlockKind) -> None:
    blocks = blocks_added(kind)
    fits = first_start(kind) <= start < end <= 32 and 32 - (end - start) >= 1 and 32 - (end - start) + blocks >= 2
    if not fits:
        with pytest.raises(SelectionError, match="window"):
            make_plan(LLAMA_2_7B, Target(window=(start, end)), kind)
        return
    plan = make_plan(LLAMA_2_7B, Target(window=(start, end)), kind)
    assert plan.removed_layers == tuple(range(start, end))


def test_several_layers_count_as_often_as_they_are_put_in() -> None:
    plan = make_plan(LLAMA_2_7B, Target(layers=6), "layer", layers=3)
    assert (plan.removed_count, plan.added_parameters) == (9, 3 * layer_parameters(LLAMA_2_7B))


@pytest.mark.parametrize("kind", [kind for kind in BLOCK_KINDS if kind != "layer"])
def test_several_layers_of_another_kind_are_refused_by_the_field(kind: BlockKind) -> None:
    with pytest.raises(SelectionError, match=f"{kind} is one block at most") as caught:
        window_size(LLAMA_2_7B, Target(layers=2), kind, layers=2)
    assert caught.value.pointer == "/replacement/layers"


def test_more_layers_than_the_window_has_are_refused_by_the_field() -> None:
    with pytest.raises(SelectionError, match="more than the 2 of window") as caught:
        window_size(LLAMA_2_7B, Target(window=(4, 6)), "layer", layers=3)
    assert caught.value.pointer == "/replacement/layers"


def test_a_merged_map_needs_a_layer_in_front() -> None:
    with pytest.raises(SelectionError, match="start at 1 or later") as caught:
        window_size(LLAMA_2_7B, Target(window=(0, 3)), "linear_merged")
    assert caught.value.pointer == "/target/window"
    assert best_window([[0.9], [0.5], [0.7]], 1, first=first_start("linear_merged")) == (2, 0.7)


def test_a_merged_map_is_refused_where_a_norm_follows_the_mlp() -> None:
    with pytest.raises(ReplacementRefused, match="a norm follows the MLP"):
        window_size(OPT_350M, Target(layers=3), "linear_merged")


def test_where_low_scores_are_better_the_lowest_is_chosen() -> None:
    assert best_window([[3.0], [1.0], [None], [1.0]], 1, "lower") == (1, 1.0)


def test_a_closed_form_stores_nothing_and_needs_room_for_its_sums() -> None:
    fitted = make_plan(QWEN2_0_5B, Target(layers=6), "linear_residual", training_tokens=10_000_000)
    assert fitted.disk_bytes == fitted.pruned_parameters * 2


@pytest.mark.parametrize("sparsity", [0.0, 1.0, -0.1, 1.5, math.nan, math.inf])
def test_a_sparsity_outside_the_open_interval_is_refused(sparsity: float) -> None:
    with pytest.raises(SelectionError, match="between 0 and 1"):
        window_size(LLAMA_2_7B, Target(sparsity=sparsity), "none")


def test_a_target_that_leaves_too_little_is_refused_with_the_reachable_range() -> None:
    with pytest.raises(SelectionError, match=r"reachable range is 0\.0300 to 0\.9010"):
        window_size(LLAMA_2_7B, Target(sparsity=0.97), "layer")


@pytest.mark.parametrize("target", [Target(), Target(sparsity=0.2, layers=3)])
def test_exactly_one_target_must_be_named(target: Target) -> None:
    with pytest.raises(SelectionError, match="exactly one"):
        window_size(LLAMA_2_7B, target, "none")


def test_a_native_form_that_does_not_exist_is_refused() -> None:
    with pytest.raises(NativeFormRefused, match="gated"):
        make_plan(LLAMA_2_7B, Target(sparsity=0.25), "ffn", "native")


def test_counts_from_headers_leave_out_buffers_and_a_stored_tied_head() -> None:
    sizes = {
        "model.decoder.embed_tokens.weight": 1000,
        "lm_head.weight": 1000,
        **{f"model.decoder.layers.{i}.fc1.weight": 10 + i for i in range(12)},
        "model.decoder.layers.0.rotary_emb.inv_freq": 99,
    }
    counts = ParameterCounts.from_tensors(OPT_125M, sizes)
    assert counts.per_layer == tuple(10 + i for i in range(12))
    assert counts.outside == 1000


def test_an_explicit_window_counts_the_layers_that_it_names() -> None:
    counts = ParameterCounts(tuple(range(100, 112)), outside=500)
    size = window_size(OPT_125M, Target(window=(2, 4)), "none", counts=counts)
    assert size.removed_parameters == 102 + 103


@given(
    st.integers(1, 12).flatmap(
        lambda n: st.tuples(st.just(n), st.lists(st.floats(-1, 1), min_size=13 - n, max_size=13 - n))
    )
)
def test_the_best_window_has_the_highest_score(case: tuple[int, list[float]]) -> None:
    size, scores = case
    table: list[list[float | None]] = [[None] * 12 for _ in range(12)]
    for start, score in enumerate(scores):
        table[start][size - 1] = score
    start, score = best_window(table, size)
    assert score == max(scores)
    assert start == scores.index(score)


def test_scores_that_are_no_numbers_are_never_chosen() -> None:
    table = [[math.nan, None], [0.5, None]]
    assert best_window(table, 1) == (1, 0.5)
    with pytest.raises(SelectionError, match="finite"):
        best_window([[math.nan]], 1)


def test_bytes_grow_with_the_training_tokens() -> None:
    few = make_plan(QWEN2_0_5B, Target(layers=6), "layer", training_tokens=1000)
    many = make_plan(QWEN2_0_5B, Target(layers=6), "layer", training_tokens=10_000_000)
    assert many.disk_bytes == 2 * 10_000_000 * 896 * 2
    assert few.disk_bytes == few.pruned_parameters * 2
    assert few.memory_bytes > few.dense_parameters * 4
