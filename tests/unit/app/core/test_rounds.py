"""What the planner promises where several windows, or rounds, each get a replacement of their own."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.architectures import BLOCK_KINDS, BlockKind, ReplacementRefused, block_parameters, layer_parameters
from app.core.conflicts import check_selection
from app.core.plan import make_plan
from app.core.selection import (
    ONE_WINDOW,
    Mode,
    Selection,
    SelectionError,
    Target,
    blocks_added,
    round_layers,
    window_size,
)
from tests.unit.app.core.configs import LLAMA_2_7B, QWEN2_0_5B

IN_STOCK: tuple[BlockKind, ...] = ("none", "layer", "linear_merged")
KINDS = st.sampled_from(IN_STOCK)


def of(mode: Mode, count: int) -> Selection:
    return Selection(mode, rounds=count) if mode == "iterative" else Selection(mode, windows=count)


SELECTIONS = st.builds(of, st.sampled_from(("one_shot", "iterative")), st.integers(1, 6))


@given(SELECTIONS, KINDS, st.integers(1, 3), st.integers(2, 60), st.integers(1, 58))
def test_layers_fewer_is_exactly_what_comes_out_of_all_of_them(
    selection: Selection, kind: BlockKind, new: int, layers: int, fewer: int
) -> None:
    config = LLAMA_2_7B | {"num_hidden_layers": layers}
    new = new if kind == "layer" else 1
    blocks = blocks_added(kind, new)
    try:
        size = window_size(config, Target(layers=fewer), kind, layers=new, selection=selection)
    except SelectionError as error:
        assert error.pointer in ("/target/layers", "/target")  # noqa: PT017 - only what is refused has a pointer
        return
    times = selection.replacements
    assert size.removed_count == fewer + times * blocks
    assert size.added_parameters == times * new * block_parameters(config, kind)
    assert size.pruned_parameters == size.dense_parameters - fewer * layer_parameters(config)
    assert layers - fewer >= 2
    rounds = round_layers(size, selection.rounds)
    assert sum(rounds) == fewer
    assert min(rounds) >= 1, "every round makes the model smaller"
    assert max(rounds) - min(rounds) <= 1
    assert list(rounds) == sorted(rounds, reverse=True)


@given(SELECTIONS, KINDS, st.integers(2, 60), st.floats(0.01, 0.95))
def test_no_other_size_of_all_of_them_is_closer_to_the_target(
    selection: Selection, kind: BlockKind, layers: int, sparsity: float
) -> None:
    config = QWEN2_0_5B | {"num_hidden_layers": layers}
    try:
        size = window_size(config, Target(sparsity=sparsity), kind, selection=selection)
    except SelectionError as error:
        assert error.pointer == "/target/sparsity"  # noqa: PT017
        return
    per_layer, times = layer_parameters(config), selection.replacements
    for other in range(1, 2 * layers):
        net = (other * per_layer - size.added_parameters) / size.dense_parameters
        if net > 0:
            assert abs(size.sparsity - sparsity) <= abs(net - sparsity) + 1e-12
    assert size.removed_count - size.blocks_added >= times


@pytest.mark.parametrize("selection", [ONE_WINDOW, of("one_shot", 3), of("iterative", 3)], ids=lambda s: s.what)
@pytest.mark.parametrize("kind", IN_STOCK)
def test_ratios_up_to_sixty_percent_are_reached(kind: BlockKind, selection: Selection) -> None:
    plan = make_plan(LLAMA_2_7B, Target(sparsity=0.6), kind, selection=selection)
    assert plan.sparsity == pytest.approx(0.6, abs=0.016)
    assert plan.replacements == selection.replacements


def test_the_plan_shows_that_several_replacements_save_little() -> None:
    plans = [
        make_plan(LLAMA_2_7B, Target(sparsity=0.25), "layer", selection=of("one_shot", n)).to_json() for n in (1, 4, 8)
    ]
    assert [plan["removed_count"] for plan in plans] == [9, 12, 16]
    assert [round(plan["replacements"]["share_given_back"], 3) for plan in plans] == [0.111, 0.333, 0.5]
    assert len({plan["parameters"]["pruned"] for plan in plans}) == 1
    assert plans[1]["replacements"]["parameters_each"] == layer_parameters(LLAMA_2_7B)


def test_each_round_has_its_share_and_room_for_the_checkpoint_before_it() -> None:
    one, three = (
        make_plan(LLAMA_2_7B, Target(layers=10), "layer", selection=selection)
        for selection in (ONE_WINDOW, of("iterative", 3))
    )
    assert (one.round_layers, three.round_layers) == ((11,), (5, 4, 4))
    assert three.removed_count == 13
    after_the_first = three.dense_parameters - 4 * layer_parameters(LLAMA_2_7B)
    assert three.disk_bytes == one.disk_bytes + 2 * after_the_first


@pytest.mark.parametrize("mode", ["one_shot", "iterative"])
def test_a_target_below_what_so_many_replacements_cost_is_refused_with_the_numbers(mode: Mode) -> None:
    with pytest.raises(SelectionError) as caught:
        window_size(LLAMA_2_7B, Target(sparsity=0.1), "layer", selection=of(mode, 6))
    assert caught.value.pointer == "/target/sparsity"
    for number in ("each of at least 2 layers", "6 replacements of 202,383,360 parameters", "0.1802 to 0."):
        assert number in str(caught.value)
    with pytest.raises(SelectionError, match="from 6 to"):
        window_size(LLAMA_2_7B, Target(layers=5), "layer", selection=of(mode, 6))


def test_a_model_too_shallow_for_so_many_windows_is_refused() -> None:
    with pytest.raises(SelectionError, match="no room for 30 windows"):
        window_size(LLAMA_2_7B, Target(sparsity=0.3), "layer", selection=of("one_shot", 30))


TWO, AGAIN, LAYERS = of("one_shot", 2), of("iterative", 2), Target(layers=4)


@pytest.mark.parametrize(
    ("selection", "target", "metric", "adaptive", "pointer", "says"),
    [
        (Selection("iterative", 1, 1), LAYERS, "cosine", True, "/selection/rounds", "at least 2"),
        (Selection("one_shot", 1, 2), LAYERS, "cosine", True, "/selection/rounds", "mode iterative"),
        (Selection("iterative", 2, 2), LAYERS, "cosine", True, "/selection/windows", "rounds or windows"),
        (TWO, Target(window=(3, 6)), "cosine", False, "/selection/windows", "target.window"),
        (AGAIN, Target(window=(3, 6)), "cosine", True, "/selection/mode", "target.window"),
        (TWO, LAYERS, "task", False, "/scoring/metric", "cosine"),
        (TWO, LAYERS, "cosine", True, "/scoring/adaptive", "leave it out"),
    ],
)
def test_what_several_windows_cannot_be_combined_with_is_refused_by_the_field(
    selection: Selection, target: Target, metric: str, adaptive: bool, pointer: str, says: str
) -> None:
    with pytest.raises(SelectionError, match=says) as caught:
        check_selection(selection, target, "layer", "auto", metric, adaptive)
    assert caught.value.pointer == pointer


@pytest.mark.parametrize("selection", [TWO, AGAIN], ids=lambda s: s.what)
@pytest.mark.parametrize("kind", BLOCK_KINDS)
def test_only_kinds_that_end_in_a_stock_architecture_stand_in_several_windows(
    kind: BlockKind, selection: Selection
) -> None:
    check_selection(selection, LAYERS, kind, "native", "cosine", adaptive=False)
    if kind in IN_STOCK:
        check_selection(selection, LAYERS, kind, "auto", "cosine", adaptive=False)
        return
    with pytest.raises(ReplacementRefused, match="layer, linear_merged or none"):
        check_selection(selection, LAYERS, kind, "auto", "cosine", adaptive=False)
