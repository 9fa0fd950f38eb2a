"""Hidden states on their way between files and the device."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch

from worker.engine.training.loop import read_ahead
from worker.engine.transfers import DeviceWaits, StateReader, StateWriter, write_states

CPU = torch.device("cpu")


def test_states_are_found_where_they_were_written_whatever_the_order(tmp_path: Path) -> None:
    states = torch.randn(3, 4, 5).to(torch.bfloat16)
    path = tmp_path / "states"
    with path.open("wb", buffering=0) as file, StateWriter(CPU) as writer:
        for row in (2, 0, 1):
            writer.write(file, row * states[0].nbytes, states[row], torch.isfinite)
    found = torch.frombuffer(bytearray(path.read_bytes()), dtype=torch.bfloat16).view(3, 4, 5)
    assert torch.equal(found, states)


def test_a_view_is_written_as_what_it_shows(tmp_path: Path) -> None:
    states = torch.arange(12.0).view(3, 4)
    with (tmp_path / "states").open("wb", buffering=0) as file:
        write_states(file, 8, states.T)
    raw = (tmp_path / "states").read_bytes()
    assert raw[:8] == bytes(8)
    assert torch.equal(torch.frombuffer(bytearray(raw[8:]), dtype=torch.float32).view(4, 3), states.T)


def test_what_cannot_be_written_is_raised(tmp_path: Path) -> None:
    (tmp_path / "states").touch()
    with (tmp_path / "states").open("rb") as file, pytest.raises(OSError), StateWriter(CPU) as writer:
        writer.write(file, 0, torch.ones(2), torch.isfinite)


def test_stored_states_come_back_stacked_in_float32() -> None:
    rows = [torch.full((2, 3), float(value), dtype=torch.bfloat16) for value in (1, 2)]
    stacked = StateReader(CPU).stacked(rows)
    assert stacked.dtype == torch.float32
    assert torch.equal(stacked, torch.stack(rows).float())


def test_batches_come_in_order_and_the_next_is_read_while_one_is_worked_with() -> None:
    read: list[int] = []

    def take(item: int) -> int:
        read.append(item)
        return item * 10

    waits = DeviceWaits(CPU)
    waits.overlap = True  # as on CUDA
    batches = read_ahead(take, range(4), waits)
    assert next(batches) == 0
    ends = time.monotonic() + 120
    while read != [0, 1] and time.monotonic() < ends:
        time.sleep(0.001)
    assert read == [0, 1]
    assert list(batches) == [10, 20, 30]
    assert waits.seconds >= 0


@pytest.mark.parametrize("overlap", [False, True])
def test_a_batch_that_cannot_be_read_ends_the_loop_with_its_error(overlap: bool) -> None:
    def broken(item: int) -> int:
        if item == 2:
            raise OSError("the disk is gone")
        return item

    waits = DeviceWaits(CPU)
    waits.overlap = overlap
    batches = read_ahead(broken, range(4), waits)
    assert [next(batches), next(batches)] == [0, 1]
    with pytest.raises(OSError, match="the disk is gone"):
        next(batches)


def test_a_reader_that_is_left_early_reads_no_further() -> None:
    read: list[int] = []
    waits = DeviceWaits(CPU)
    waits.overlap = True
    batches = read_ahead(read.append, range(100), waits)
    next(batches)
    batches.close()
    assert len(read) <= 2


def test_where_reading_would_take_a_core_from_computing_it_is_done_in_turn() -> None:
    read: list[int] = []
    batches = read_ahead(read.append, range(3), DeviceWaits(CPU))
    for number in range(3):
        next(batches)
        assert read == list(range(number + 1))
