"""A hung process is told from one that computes in silence."""

import os
import signal
import subprocess
import sys
import time

import pytest

from worker.pulse import Pulse

LIMIT = 1.0


@pytest.mark.parametrize(
    ("program", "hangs"),
    [
        ("import sys; sys.stdin.read()", True),
        ("while True: pass", False),
        ("import subprocess, sys; subprocess.run([sys.executable, '-c', 'while True: pass'])", False),
    ],
    ids=["waits", "computes", "its child computes"],
)
def test_only_a_process_that_neither_speaks_nor_computes_has_stopped(program: str, hangs: bool) -> None:
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, start_new_session=True) as process:
        pulse = Pulse(process.pid, LIMIT)
        try:
            time.sleep(0.5)  # its start is work
            stopped = False
            end = time.monotonic() + 3 * LIMIT
            while time.monotonic() < end and not stopped:
                stopped = pulse.has_stopped()
                time.sleep(0.05)
            assert stopped == hangs
            pulse.heard()
            assert not pulse.has_stopped()
        finally:
            os.killpg(process.pid, signal.SIGKILL)
