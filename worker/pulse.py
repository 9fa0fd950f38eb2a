"""Signs of life of an engine: what it says, and the processor time that it and its children have used."""

import contextlib
import time

import psutil

_BUSY_SHARE = 0.01
"""An interpreter that only waits uses less of a processor than this; one that waits for a GPU polls and uses more."""
_LOOKS = 10
"""Per limit: a stray tick of an idle thread must not count as work, nor work shortly before a hang hide it."""


class Pulse:
    """Tells when an engine has neither sent an event nor used a processor for some time.

    A quiet engine is not a hung one: a long step says nothing for minutes, but it computes. One that waits for a lock
    that nobody will let go of, or was stopped by a signal, does neither.
    """

    def __init__(self, pid: int, limit_seconds: float) -> None:
        """Watch the process `pid` and its descendants; it has just given a sign of life."""
        self._pid = pid
        self._limit = limit_seconds
        self._last_sign = self._looked_at = time.monotonic()
        self._cpu_then = _cpu_seconds(pid)

    def heard(self) -> None:
        """The engine has sent an event."""
        self._last_sign = time.monotonic()

    def has_stopped(self) -> bool:
        """Whether the last sign of life is older than the limit."""
        now = time.monotonic()
        elapsed = now - self._looked_at
        if elapsed >= self._limit / _LOOKS:
            cpu = _cpu_seconds(self._pid)
            # A sum that shrank has lost a child, which ended: a sign of life too.
            if cpu < self._cpu_then or cpu - self._cpu_then > _BUSY_SHARE * elapsed:
                self._last_sign = now
            self._cpu_then, self._looked_at = cpu, now
        return now - self._last_sign > self._limit


def _cpu_seconds(pid: int) -> float:
    """User and system time of the process, of its living descendants, and of those that it has waited for."""
    total = 0.0
    with contextlib.suppress(psutil.NoSuchProcess):
        parent = psutil.Process(pid)
        for process in (parent, *parent.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                total += sum(process.cpu_times()[:4])  # user, system, and both of children that have ended
    return total
