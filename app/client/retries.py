"""When a request is sent again, and after how long: one rule for both clients, which does not sleep itself."""

import time
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

import httpx

_PASSING_STATUSES: Final = frozenset({429, 502, 503, 504})
_FIRST_PAUSE_SECONDS: Final = 0.2
_LONGEST_PAUSE_SECONDS: Final = 5.0


class Retries:
    """The pauses between the tries of one request: doubling, never less than `Retry-After` asks for (RFC 9110, 10.2.3).

    Args:
        patience: seconds after which the request is given up; 0 for one that must not be sent twice.
        reachable: whether the service is known to be there, so that no answer at all is a fault that passes.
    """

    def __init__(self, patience: float, *, reachable: bool) -> None:
        self._end = time.monotonic() + patience
        self._reachable = reachable
        self._pause = _FIRST_PAUSE_SECONDS
        self.tries = 0

    def pause(self, answer: httpx.Response | None) -> float | None:
        """Seconds to wait before the next try after this answer (None: there was none); None: there is no next try."""
        self.tries += 1
        self._reachable |= answer is not None
        if not self._reachable or (answer is not None and answer.status_code not in _PASSING_STATUSES):
            return None
        seconds = max(self._pause, 0.0 if answer is None else _seconds(answer.headers.get("Retry-After")))
        self._pause = min(2 * self._pause, _LONGEST_PAUSE_SECONDS)
        return seconds if time.monotonic() + seconds <= self._end else None


def _seconds(retry_after: str | None) -> float:
    """A `Retry-After` header's value: seconds or a date; 0 where it is neither."""
    if not retry_after:
        return 0.0
    if retry_after.isdigit():
        return float(retry_after)
    try:
        moment = parsedate_to_datetime(retry_after)
    except ValueError:
        return 0.0
    if moment.tzinfo is None:  # a date without a zone is none of HTTP's
        return 0.0
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())
