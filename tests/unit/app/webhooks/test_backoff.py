"""When a delivery is tried again."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.webhooks.backoff import LONGEST_SECONDS, SCHEDULE_SECONDS, delay_after


@pytest.mark.parametrize("failures", range(1, len(SCHEDULE_SECONDS) + 1))
def test_waits_grow_and_are_spread(failures: int) -> None:
    planned = SCHEDULE_SECONDS[failures - 1]
    waits = {delay_after(failures) for _ in range(50)}
    assert len(waits) > 40
    assert all(wait is not None and planned <= wait <= 1.2 * planned for wait in waits)


def test_all_attempts_together_take_days_and_then_it_is_given_up() -> None:
    assert list(SCHEDULE_SECONDS) == sorted(SCHEDULE_SECONDS)
    assert 2 * 86400 < sum(SCHEDULE_SECONDS) < 4 * 86400
    assert delay_after(len(SCHEDULE_SECONDS) + 1) is None
    assert delay_after(len(SCHEDULE_SECONDS) + 1, retry_after=5) is None


@given(st.integers(1, len(SCHEDULE_SECONDS)), st.integers(0, 10**9))
def test_a_receiver_is_left_alone_for_as_long_as_it_asks_but_no_longer_than_a_day(failures: int, wanted: int) -> None:
    wait = delay_after(failures, retry_after=wanted)
    assert wait is not None
    assert min(wanted, LONGEST_SECONDS) <= wait <= max(wanted, 1.2 * SCHEDULE_SECONDS[failures - 1])
