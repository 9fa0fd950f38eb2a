"""A job waits where exactly the workers look that have the memory for its class."""

from hypothesis import given
from hypothesis import strategies as st

from app.core.device_memory import CARDS, card_bytes
from app.dispatch.memory_classes import ANY, memory_class, queue_for, queues_of

BYTES = st.integers(1, 10**12)


@given(need=BYTES, memory=BYTES)
def test_a_worker_looks_for_a_job_only_if_it_has_the_memory_of_its_class(need: int, memory: int) -> None:
    looked_for = queue_for(need) in queues_of(memory)
    if need <= max(CARDS.values()):
        smallest = min(has for has in CARDS.values() if need <= has)
        assert looked_for == (smallest <= memory)
        assert memory >= need or not looked_for, "of what it takes it can hold everything"
    else:
        assert looked_for == (memory > max(CARDS.values()))


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
