"""A hung process is told from one that computes in silence."""

import os
import signal
import subprocess
import sys
from functools import partial

import psutil
import pytest

from tests.service_process import wait_until
from worker import pulse as module
from worker.pulse import Pulse

LIMIT = 1.0
UP = "import sys, subprocess; print('up', flush=True); "


class Clock:
    """Stands where it is put."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("program", "hangs"),
    [
        ("sys.stdin.read()", True),
        ("exec('while True: pass')", False),
        ("subprocess.run([sys.executable, '-c', 'while True: pass'])", False),
    ],
    ids=["waits", "computes", "its child computes"],
)
def test_only_a_process_that_neither_speaks_nor_computes_has_stopped(
    program: str, hangs: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The clock stands still while a process that computes has not got a processor.
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    command = [sys.executable, "-c", UP + program]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"up\n"
            pulse = Pulse(process.pid, LIMIT)
            stopped = False
            while clock.now < 3 * LIMIT and not stopped:
                before = _computed(process.pid)
                if not hangs:
                    wait_until(partial(_computed_more, process.pid, before), what="it computes")
                clock.now += LIMIT / 8
                stopped = pulse.has_stopped()
            assert stopped == hangs
            pulse.heard()
            assert not pulse.has_stopped()
        finally:
            os.killpg(process.pid, signal.SIGKILL)


def _computed_more(pid: int, than: float) -> bool:
    return _computed(pid) > than


def _computed(pid: int) -> float:
    """Processor seconds of the process and its children."""
    found = psutil.Process(pid)
    return sum(sum(one.cpu_times()[:2]) for one in (found, *found.children(recursive=True)))
