"""Classes of GPU memory: each worker and each waiting job is in one, and what no worker can take is counted."""

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from app.core.device_memory import CARDS, card_bytes, class_floor
from app.jobs.workers import KnownWorkers
from app.web.workers import classes

NOON = datetime(2026, 11, 26, 12, 0, 59, tzinfo=UTC)
MEMORIES = st.none() | st.integers(min(CARDS.values()), 10**12).map(class_floor)
NEEDS = st.none() | st.integers(1, 10**12)


def known(*groups: tuple[int | None, int]) -> list[KnownWorkers]:
    return [KnownWorkers(memory, count, NOON) for memory, count in groups]


def test_the_largest_class_comes_first_and_one_without_workers_is_there_while_a_job_waits_in_it() -> None:
    found = classes(known((card_bytes(24), 2), (card_bytes(80), 0)), {card_bytes(24): 3, 10**9: 1, 100 * 10**9: 4})
    assert [(each.name, each.workers, each.waiting, each.stuck) for each in found] == [
        ("141 GB", 0, 4, 4),
        ("80 GB", 0, 0, 0),
        ("24 GB", 2, 3, 0),
        ("8 GB", 0, 1, 0),
    ]
    assert [each.seen for each in found] == ["", "2026-11-26 12:00", "2026-11-26 12:00", ""]


def test_above_the_largest_card_bytes_count_and_a_worker_without_a_size_takes_all() -> None:
    needs: dict[int | None, int] = {250 * 10**9: 1, 400 * 10**9: 2}
    (beyond,) = classes(known((300 * 10**9, 1)), needs)
    assert (beyond.name, beyond.waiting, beyond.stuck) == ("more than 192 GB", 3, 2)
    anybody, beyond = classes(known((300 * 10**9, 1), (None, 1)), needs)
    assert (anybody.name, anybody.workers, beyond.stuck) == ("any", 1, 0)


def test_the_larger_workers_that_may_take_a_classs_jobs_are_counted_beside_its_own() -> None:
    groups = known((None, 1), (card_bytes(8), 4), (card_bytes(24), 2), (card_bytes(80), 3), (card_bytes(141), 0))
    found = classes(groups, {card_bytes(24): 1, None: 1})
    assert {each.name: (each.workers, each.larger, each.of_any_size) for each in found} == {
        "any": (1, 9, 0),
        "141 GB": (0, 0, 1),
        "80 GB": (3, 0, 1),
        "24 GB": (2, 3, 1),
        "8 GB": (4, 5, 1),
    }


def test_a_worker_that_has_gone_silent_takes_nothing() -> None:
    (only,) = classes(known((card_bytes(8), 0)), {10**9: 2})
    assert (only.workers, only.waiting, only.stuck) == (0, 2, 2)


@given(groups=st.dictionaries(MEMORIES, st.integers(0, 9)), needs=st.dictionaries(NEEDS, st.integers(1, 9)))
def test_nothing_is_left_out_or_counted_twice(groups: dict[int | None, int], needs: dict[int | None, int]) -> None:
    found = classes(known(*groups.items()), needs)
    assert sum(each.workers for each in found) == sum(groups.values())
    assert sum(each.waiting for each in found) == sum(needs.values())
    assert all(0 <= each.stuck <= each.waiting for each in found)
    assert len({each.id for each in found}) == len(found)
