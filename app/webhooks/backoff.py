"""When a delivery that failed is tried again: the schedule of the Standard Webhooks specification, over three days."""

import random
from typing import Final

SCHEDULE_SECONDS: Final = (5, 60, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400)
"""After the first failure, the second, ...; after one more than there are entries the delivery is given up."""
LONGEST_SECONDS: Final = 86_400
_SPREAD: Final = 0.2
_random = random.SystemRandom()


def delay_after(failures: int, *, retry_after: int = 0) -> float | None:
    """Seconds until the next attempt, spread so that receivers that come back are not met by all at once.

    Args:
        failures: how many attempts have failed so far, the last one among them; at least 1.
        retry_after: what the receiver asks for (RFC 9110, 10.2.3), in seconds; heeded up to a day.

    Returns:
        None when there is no next attempt.
    """
    if failures > len(SCHEDULE_SECONDS):
        return None
    planned = SCHEDULE_SECONDS[failures - 1] * _random.uniform(1.0, 1.0 + _SPREAD)
    return max(planned, float(min(retry_after, LONGEST_SECONDS)))
