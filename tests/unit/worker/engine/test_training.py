"""What training promises: it helps or it is undone, and the seed decides every byte."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from app.core.architectures import BlockKind
from worker.engine.activation_store import ActivationStore
from worker.engine.decoder import Decoder
from worker.engine.replacements import build
from worker.engine.replacements.starts import Start
from worker.engine.stages import block_arguments
from worker.engine.training import CHECKS, History, Pairs, Plan, fit, learning_rate_at

START, END = 1, 4


def make_pairs(decoder: Decoder, directory: Path, sequences: int = 24) -> Pairs:
    ids = torch.randint(2, 64, (sequences, 12), generator=torch.Generator().manual_seed(1))
    return Pairs.split(ActivationStore.capture(decoder, ids, START, END, directory, batch_size=8))


def train(
    decoder: Decoder, pairs: Pairs, kind: BlockKind, *, rate: float = 3e-3, epochs: int = 4, seed: int = 0
) -> tuple[nn.Module, History]:
    arguments = block_arguments(decoder, START, pairs.store.length, kind == "layer")
    block = build(kind, Start(decoder, START, END, "best", 0, lambda made: pairs.error(made, arguments, 4)))
    assert block is not None
    return block, fit(block, pairs, arguments, Plan(epochs, rate, 4, seed))


@pytest.mark.parametrize("kind", ["ffn", "swiglu", "layer"])
def test_training_lowers_the_held_out_error_in_every_family(decoder: Decoder, kind: BlockKind, tmp_path: Path) -> None:
    pairs = make_pairs(decoder, tmp_path)
    block, history = train(decoder, pairs, kind)
    assert history.kept == "trained"
    assert history.best_mse < history.start_mse
    arguments = block_arguments(decoder, START, 12, kind == "layer")
    assert pairs.error(block, arguments, 4) == pytest.approx(history.best_mse)


@pytest.mark.parametrize("kind", ["ffn", "swiglu", "layer"])
def test_one_seed_gives_the_same_bytes_twice(llama: Decoder, kind: BlockKind, tmp_path: Path) -> None:
    pairs = make_pairs(llama, tmp_path)
    first, _ = train(llama, pairs, kind, seed=5)
    second, _ = train(llama, pairs, kind, seed=5)
    other, _ = train(llama, pairs, kind, seed=6)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first.parameters(), other.parameters(), strict=True))


def test_the_untrained_start_is_kept_when_training_does_not_beat_it(llama: Decoder, tmp_path: Path) -> None:
    pairs = make_pairs(llama, tmp_path)
    block, history = train(llama, pairs, "layer", rate=1e4)
    untrained, start = train(llama, pairs, "layer", epochs=0)
    assert history.kept == "start"
    assert history.best_mse == history.start_mse == start.start_mse
    assert all(torch.equal(a, b) for a, b in zip(block.parameters(), untrained.parameters(), strict=True))


def test_the_best_state_is_a_copy_that_later_steps_do_not_change(llama: Decoder, tmp_path: Path) -> None:
    pairs = make_pairs(llama, tmp_path)
    arguments = block_arguments(llama, START, 12, False)
    block = build("ffn", Start(llama, START, END, "first", 0, lambda _: 0.0))
    assert block is not None
    # Past its best point the block is thrown far away.
    calls = 0
    original = pairs.error

    class Spoiled(Pairs):
        def error(self, block: nn.Module | None, *rest: Any) -> float:
            nonlocal calls
            calls += block is not None
            value = original(block, *rest)
            return value if calls <= 3 else value + 1e6

    spoiled = Spoiled(pairs.store, pairs.train, pairs.held_out)
    history = fit(block, spoiled, arguments, Plan(4, 3e-3, 4, 0))
    assert original(block, arguments, 4) == pytest.approx(history.best_mse)
    assert history.best_step == history.held_out[2]["step"]


def test_a_loss_that_diverges_ends_training_with_the_best_state(llama: Decoder, tmp_path: Path) -> None:
    block, history = train(llama, make_pairs(llama, tmp_path), "ffn", rate=1e30)
    assert history.diverged
    json.dumps([history.steps, history.held_out, history.best_mse], allow_nan=False)
    assert all(torch.isfinite(p).all() for p in block.parameters())


def test_history_tells_loss_and_checks_over_the_whole_run(llama: Decoder, tmp_path: Path) -> None:
    pairs = make_pairs(llama, tmp_path)
    _, history = train(llama, pairs, "swiglu")
    assert history.steps[-1]["tokens"] == 4 * len(pairs.train) * 12
    assert history.held_out[0] == {"step": 0, "mse": history.start_mse}
    assert history.held_out[-1]["step"] == history.steps[-1]["step"]
    assert len(history.held_out) == CHECKS + 1


@given(st.integers(1, 400))
def test_no_sequence_is_both_trained_on_and_judged_by(count: int) -> None:
    class Counted(ActivationStore):
        def __init__(self) -> None: ...

        def __len__(self) -> int:
            return count

    pairs = Pairs.split(Counted())
    assert pairs.held_out
    assert pairs.train
    if count > 1:
        assert sorted((*pairs.train, *pairs.held_out)) == list(range(count))


@given(st.integers(1, 5000))
def test_the_learning_rate_warms_up_to_its_peak_and_falls_to_its_floor(steps: int) -> None:
    rates = [learning_rate_at(step, steps, 1.0) for step in range(steps)]
    assert max(rates) == pytest.approx(1.0)
    assert min(rates) > 0
    peak = rates.index(max(rates))
    assert rates[: peak + 1] == sorted(rates[: peak + 1])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)


def test_the_plain_cut_is_the_error_of_no_block(llama: Decoder, tmp_path: Path) -> None:
    pairs = make_pairs(llama, tmp_path)
    before, after = pairs.store.batch(list(pairs.held_out))
    expected: Tensor = (before - after).square().mean()
    assert pairs.error(None, lambda _: {}, 4) == pytest.approx(expected.item())
