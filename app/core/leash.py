"""A child process that ends when its parent does, however the parent ended.

The parent keeps the writing end of a pipe open as the child's standard input and never writes. The kernel closes it
when the parent dies, even by SIGKILL; the child's watching thread then reads the end of the file.
"""

import os
import signal
import sys
import threading


def follow_parent(*, whole_group: bool = False) -> None:
    """Watch standard input from now on; at its end, send SIGTERM to this process.

    Args:
        whole_group: SIGKILL the whole process group instead: for a process that leads a group of its own and whose
            work is worthless (and must not go on writing) once nobody supervises it.
    """

    def watch() -> None:
        while os.read(sys.stdin.fileno(), 4096):
            pass
        if whole_group:
            os.killpg(os.getpgrp(), signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="leash", daemon=True).start()
