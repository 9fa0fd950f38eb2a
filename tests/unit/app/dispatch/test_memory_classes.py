"""A job waits where exactly the workers look that have the memory for its class."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.device_memory import CARDS, card_bytes, class_floor
from app.dispatch.memory_classes import ANY, BEYOND, memory_class, queue_for, queues_of, worker_class

BYTES = st.integers(1, 10**12)


@given(need=BYTES, device=st.integers(min(CARDS.values()), 10**12))
def test_a_worker_looks_where_exactly_the_jobs_wait_that_its_claims_would_get(need: int, device: int) -> None:
    memory = class_floor(device)
    assert memory <= device
    looked_for = queue_for(need) in queues_of(memory)
    if need <= max(CARDS.values()):
        assert looked_for == (need <= memory)
    else:
        assert looked_for == (memory > max(CARDS.values())), "a claim tells which of those fit"


@given(device=st.integers(min(CARDS.values()), 10**12))
def test_a_worker_is_of_the_largest_class_that_it_takes_from(device: int) -> None:
    memory = class_floor(device)
    assert queues_of(memory)[0] == f"{ANY}.{worker_class(memory)}"
    assert (worker_class(memory) == BEYOND) == (memory > max(CARDS.values()))
    assert worker_class(None) == memory_class(None)


@given(device=st.integers(min(CARDS.values()), 10**12))
def test_a_job_for_the_largest_worker_is_looked_for_by_it(device: int) -> None:
    """A model that is read in layers needs what the largest worker has, by the setting of that name."""
    assert queue_for(class_floor(device)) in queues_of(class_floor(device))


def test_less_than_the_smallest_class_is_refused() -> None:
    with pytest.raises(ValueError, match="less than the smallest class"):
        class_floor(min(CARDS.values()) - 1)


@given(need=st.none() | BYTES)
def test_a_worker_whose_memory_is_not_stated_takes_every_job(need: int | None) -> None:
    assert queue_for(need) in queues_of(None)


@given(memory=st.none() | BYTES)
def test_every_worker_takes_what_is_of_unknown_size_and_looks_for_the_largest_first(memory: int | None) -> None:
    queues = queues_of(memory)
    assert queues[-1] == ANY == queue_for(None)
    sizes = [int(name.removeprefix(f"{ANY}.").removesuffix("g")) for name in queues[:-1] if "beyond" not in name]
    assert sizes == sorted(sizes, reverse=True)
    assert len(set(queues)) == len(queues)


def test_classes_are_named_as_cards_are_sold() -> None:
    assert [memory_class(need) for need in (None, 10**9, 18 * 10**9, 50 * 10**9, 10**12)] == [
        "any", "8g", "24g", "80g", "beyond"
    ]  # fmt: skip
    # As the driver tells them: T4, L4, L40S, A100 and H100 of 80 GB, H200.
    told = {16: 15_655_829_504, 24: 23_676_977_152, 48: 47_697_362_944, 80: 84_974_239_744, 141: 150_121_545_728}
    assert all(card_bytes(card) <= found for card, found in told.items())
