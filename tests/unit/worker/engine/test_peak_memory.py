"""The most memory in use meanwhile, as the resident set tells it (worker/engine/peak_memory.py)."""

import pytest
import torch

from worker.engine.peak_memory import peak_growth

CPU = torch.device("cpu")
SIZE = 64 * 2**20
# Pages that the interpreter and the allocator take or give back meanwhile, huge ones among them, and what the kernel
# counts per processor; a sum of peaks, or an earlier one, would be off by twice SIZE and more.
TOLERANCE = SIZE // 2


def touch(nbytes: int) -> None:
    torch.ones(nbytes // 4).sum()


@pytest.mark.parametrize("times", [1, 3])
def test_the_peak_is_that_of_what_is_held_at_once_not_the_sum(times: int) -> None:
    def work() -> None:
        for _ in range(times):
            touch(SIZE)

    assert peak_growth(CPU, work) == pytest.approx(SIZE, abs=TOLERANCE)


def test_a_higher_peak_of_earlier_work_is_not_counted() -> None:
    touch(4 * SIZE)
    assert peak_growth(CPU, lambda: touch(SIZE)) == pytest.approx(SIZE, abs=TOLERANCE)


def test_what_was_there_before_is_not_counted() -> None:
    held = torch.ones(4 * SIZE // 4)
    assert peak_growth(CPU, lambda: touch(SIZE)) == pytest.approx(SIZE, abs=TOLERANCE)
    assert held.numel()
