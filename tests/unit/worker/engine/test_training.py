"""What training promises: it helps or it is undone, and the seed decides every byte."""

from __future__ import annotations

import json
from dataclasses import replace
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
from worker.engine.errors import EngineError
from worker.engine.losses import Batch, MeanSquaredError
from worker.engine.replacements import build
from worker.engine.replacements.starts import Start
from worker.engine.training import (
    Arguments,
    History,
    Keeper,
    Pairs,
    Plan,
    fit,
    learning_rate_at,
    make_optimizer,
    train_step,
)
from worker.engine.training.loop import CHECKS, PATIENCE
from worker.engine.training.stage import block_arguments

START, END = 1, 4


def make_pairs(decoder: Decoder, directory: Path, sequences: int = 24) -> Pairs:
    ids = torch.randint(2, 64, (sequences, 12), generator=torch.Generator().manual_seed(1))
    return Pairs.split(ActivationStore.capture(decoder, ids, START, END, directory, batch_size=8), ids)


def start(decoder: Decoder, pairs: Pairs, kind: BlockKind) -> tuple[nn.Module, Arguments]:
    arguments = block_arguments(decoder, START, pairs.states.length, kind == "layer")
    block = build(kind, Start(decoder, START, END, "best", 0, lambda made: pairs.error(made, arguments, 4)))
    assert block is not None
    return block, arguments


def train(
    decoder: Decoder, pairs: Pairs, kind: BlockKind, *, rate: float = 3e-3, epochs: int = 4, seed: int = 0
) -> tuple[nn.Module, History]:
    block, arguments = start(decoder, pairs, kind)
    return block, fit(block, pairs, arguments, Plan(epochs, rate, 4, seed))


def same_bytes(first: nn.Module, second: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


@pytest.mark.parametrize("kind", ["ffn", "swiglu", "layer"])
def test_training_lowers_the_held_out_error_in_every_family(decoder: Decoder, kind: BlockKind, tmp_path: Path) -> None:
    pairs = make_pairs(decoder, tmp_path)
    block, history = train(decoder, pairs, kind)
    assert history.kept == "trained"
    assert history.best < history.start
    arguments = block_arguments(decoder, START, 12, kind == "layer")
    assert pairs.error(block, arguments, 4) == pytest.approx(history.best)


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
    assert history.best == history.start == start.start
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

    spoiled = Spoiled(pairs.states, pairs.input_ids, pairs.train, pairs.held_out)
    history = fit(block, spoiled, arguments, Plan(4, 3e-3, 4, 0))
    assert original(block, arguments, 4) == pytest.approx(history.best)
    assert history.best_step == history.held_out[2]["step"]


def test_a_loss_that_diverges_ends_training_with_the_best_state(llama: Decoder, tmp_path: Path) -> None:
    block, history = train(llama, make_pairs(llama, tmp_path), "ffn", rate=1e30)
    assert history.diverged
    json.dumps([history.steps, history.held_out, history.best], allow_nan=False)
    assert all(torch.isfinite(p).all() for p in block.parameters())


def test_history_tells_loss_and_checks_over_the_whole_run(llama: Decoder, tmp_path: Path) -> None:
    pairs = make_pairs(llama, tmp_path)
    _, history = train(llama, pairs, "swiglu")
    assert history.steps[-1]["tokens"] == 4 * len(pairs.train) * 12
    assert history.held_out[0] == {"step": 0, "loss": history.start}
    assert history.held_out[-1]["step"] == history.steps[-1]["step"]
    assert len(history.held_out) == CHECKS + 1


@given(st.integers(1, 400))
def test_no_sequence_is_both_trained_on_and_judged_by(count: int) -> None:
    class Counted(ActivationStore):
        def __init__(self) -> None: ...

        def __len__(self) -> int:
            return count

    pairs = Pairs.split(Counted(), torch.zeros((count, 4), dtype=torch.int32))
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
    before, after = pairs.states.batch(list(pairs.held_out))
    expected: Tensor = (before - after).square().mean()
    assert pairs.error(None, lambda _: {}, 4) == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("micro", [1, 3, 4, 5])
def test_a_divided_batch_takes_the_same_step_and_drops_no_remainder(llama: Decoder, tmp_path: Path, micro: int) -> None:
    pairs = make_pairs(llama, tmp_path)
    batch = pairs.batch([0, 1, 2, 3, 4])
    blocks = []
    for size in (None, micro):
        block, arguments = start(llama, pairs, "layer")
        block.requires_grad_(True)
        # Its steps are the gradients themselves; AdamW makes a step of full length out of a gradient that is only
        # rounding noise too.
        optimizer = torch.optim.SGD(block.parameters(), lr=1.0)
        train_step(block, optimizer, batch, arguments, MeanSquaredError(), micro_batch=size)
        blocks.append(block)
    for whole, divided in zip(*(block.parameters() for block in blocks), strict=True):
        torch.testing.assert_close(divided, whole, atol=2e-5, rtol=1e-3)


class OutOfMemoryAbove:
    """A loss on a device whose memory holds so many sequences at once."""

    def __init__(self, most: int) -> None:
        self._most = most

    def __call__(self, made: Tensor, batch: Batch) -> Tensor:
        if torch.is_grad_enabled() and len(batch) > self._most:
            raise torch.OutOfMemoryError("no room")
        return MeanSquaredError()(made, batch)


def test_where_memory_runs_out_the_micro_batch_is_halved_until_it_fits(llama: Decoder, tmp_path: Path) -> None:
    pairs = make_pairs(llama, tmp_path)
    block, arguments = start(llama, pairs, "layer")
    history = fit(block, pairs, arguments, Plan(2, 3e-3, 8, 0), OutOfMemoryAbove(2))
    assert (history.micro_batch, history.kept) == (2, "trained")
    with pytest.raises(EngineError, match="not even one sequence of 12 tokens") as caught:
        fit(block, pairs, arguments, Plan(2, 3e-3, 8, 0), OutOfMemoryAbove(0))
    assert caught.value.code == "out_of_memory"


def test_where_memory_runs_out_a_held_out_check_goes_on_with_fewer_sequences(llama: Decoder, tmp_path: Path) -> None:
    class Small(OutOfMemoryAbove):
        def __call__(self, made: Tensor, batch: Batch) -> Tensor:
            with torch.enable_grad():  # a check needs the room too
                return super().__call__(made, batch)

    pairs = replace(make_pairs(llama, tmp_path), held_out=(20, 21, 22, 23))
    block, arguments = start(llama, pairs, "layer")
    whole = pairs.error(block, arguments, 8)
    assert pairs.error(block, arguments, 8, Small(1)) == pytest.approx(whole, rel=1e-4)
    with pytest.raises(torch.OutOfMemoryError):
        pairs.error(block, arguments, 8, Small(0))


class Killed(BaseException):
    """Stands for the process ending where it is raised."""


@pytest.mark.parametrize("killed_at", [1, 7, 12])
def test_a_run_that_is_killed_in_the_middle_of_an_epoch_ends_with_the_same_bytes(
    llama: Decoder, tmp_path: Path, killed_at: int
) -> None:
    pairs = make_pairs(llama, tmp_path)
    undisturbed, history = train(llama, pairs, "layer")

    def kill(step: int, *_: Any) -> None:
        if step == killed_at + 1:
            raise Killed

    first, arguments = start(llama, pairs, "layer")
    keeper = Keeper(tmp_path / "state" / "0.safetensors", "key", 0.0)
    with pytest.raises(Killed):
        fit(first, pairs, arguments, Plan(4, 3e-3, 4, 0), report=kill, keeper=keeper)
    second, _ = start(llama, pairs, "layer")
    steps: list[int] = []
    resumed = fit(
        second, pairs, arguments, Plan(4, 3e-3, 4, 0), report=lambda step, *_: steps.append(step), keeper=keeper
    )
    assert steps[0] == killed_at + 1, "no step ran twice"
    assert same_bytes(second, undisturbed)
    assert (resumed.steps, resumed.held_out, resumed.best) == (history.steps, history.held_out, history.best)
    third, _ = start(llama, pairs, "layer")
    assert fit(third, pairs, arguments, Plan(4, 3e-3, 4, 0), keeper=keeper).steps == history.steps
    assert same_bytes(third, undisturbed), "a finished run is not run again"


def test_a_state_of_another_run_is_not_used(llama: Decoder, tmp_path: Path) -> None:
    pairs = make_pairs(llama, tmp_path)
    path = tmp_path / "0.safetensors"
    block, arguments = start(llama, pairs, "layer")
    fit(block, pairs, arguments, Plan(4, 3e-2, 4, 9), keeper=Keeper(path, "one", 0.0))
    other, _ = start(llama, pairs, "layer")
    fit(other, pairs, arguments, Plan(4, 3e-3, 4, 0), keeper=Keeper(path, "another", 0.0))
    expected, _ = train(llama, pairs, "layer")
    assert same_bytes(other, expected)


def test_a_broken_state_file_is_no_state(llama: Decoder, tmp_path: Path) -> None:
    block, _ = start(llama, make_pairs(llama, tmp_path), "layer")
    path = tmp_path / "0.safetensors"
    for content in (b"", b"half a file", b"\x08\0\0\0\0\0\0\0{}      "):
        path.write_bytes(content)
        assert Keeper(path, "key", 0.0).restore(block, make_optimizer(block, 1e-3)) is None


def test_training_ends_early_when_it_no_longer_helps(llama: Decoder, tmp_path: Path) -> None:
    pairs = make_pairs(llama, tmp_path)
    _, history = train(llama, pairs, "layer", rate=1.0, epochs=20)
    assert history.stopped_early
    assert len(history.held_out) == 1 + PATIENCE
    assert history.steps[-1]["step"] < 20 * 6
