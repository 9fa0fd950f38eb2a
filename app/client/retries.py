"""When a request is sent again, and after how long: one rule for both clients, which does not sleep itself."""

import time
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

import httpx

from app.client.failures import ProblemError, UnreachableError

TRIES_OF_A_RESTART: Final = 4  # a second or two; whoever waits is told only about more
PASSING_STATUSES: Final = frozenset({429, 502, 503, 504})
_PASSING_WHILE_WAITING: Final = PASSING_STATUSES | {500}
_SAYS_WHEN: Final = frozenset({429, 503})
"""Of our own service: it sends them with `Retry-After` wherever the same request can be sent again."""
_NOBODY_THERE: Final = (httpx.ConnectError, httpx.ConnectTimeout)
_NEVER_SENT: Final = (httpx.LocalProtocolError, httpx.UnsupportedProtocol, httpx.ProxyError)
FIRST_PAUSE_SECONDS: Final = 0.2
LONGEST_PAUSE_SECONDS: Final = 5.0


class Retries:
    """The pauses between the tries of one request: doubling, never less than `Retry-After` asks for (RFC 9110, 10.2.3).

    Args:
        patience: seconds after which the request is given up; 0 for one that must not be sent twice.
        reachable: whether the service is known to be there, so that no answer at all is a fault that passes.
        waits: whether somebody waits for what is to come, so that a failure in between (500) passes too.
    """

    def __init__(self, patience: float, *, reachable: bool, waits: bool = False) -> None:
        self._end = time.monotonic() + patience
        self._reachable = reachable
        self._waits = waits
        self._pause = FIRST_PAUSE_SECONDS
        self.tries = 0

    def pause(self, outcome: httpx.Response | httpx.TransportError) -> float | None:
        """Seconds to wait before the next try after this answer or fault; None: there is no next try."""
        self.tries += 1
        wanted = 0.0
        if isinstance(outcome, httpx.Response):
            if not self._passes(outcome):
                return None
            wanted = _seconds(outcome.headers.get("Retry-After"))
        elif reason_of(outcome):
            return None
        self._reachable |= not isinstance(outcome, _NOBODY_THERE)
        if not self._reachable:
            return None
        seconds = max(self._pause, wanted)
        self._pause = min(2 * self._pause, LONGEST_PAUSE_SECONDS)
        return seconds if time.monotonic() + seconds <= self._end else None

    def _passes(self, answer: httpx.Response) -> bool:
        """Whether a later try may end otherwise: 409 with `Retry-After` is a request of the same key still at work."""
        status, timed = answer.status_code, "Retry-After" in answer.headers
        if status in _SAYS_WHEN and "problem" in answer.headers.get("Content-Type", "") and not timed:
            # Our own service says that no waiting helps, or only for what somebody does meanwhile.
            return self._waits and status != httpx.codes.TOO_MANY_REQUESTS
        passing = _PASSING_WHILE_WAITING if self._waits else PASSING_STATUSES
        return status in passing or (status == httpx.codes.CONFLICT and timed)


def passes(fault: UnreachableError | ProblemError) -> bool:
    """Whether who waits for a job could go on after what a request of theirs came to."""
    return isinstance(fault, UnreachableError) or fault.status in _PASSING_WHILE_WAITING


def reason_of(fault: httpx.TransportError) -> httpx.TransportError | None:
    """What is worth telling of a fault: nothing where simply nobody listens or the connection broke off."""
    told = isinstance(fault, _NEVER_SENT) or "ssl" in str(fault).lower() or "certificate" in str(fault).lower()
    return fault if told else None


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
