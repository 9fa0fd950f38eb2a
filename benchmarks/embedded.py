"""A service of its own for benchmarks that need the whole way of a job."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from app.cli.serve import free_port
from app.client import Streamline

_START_SECONDS = 120


@contextmanager
def embedded_service(data_dir: Path, mirror: Path) -> Iterator[str]:
    """Serve from `data_dir`, with the tasks' files in `mirror`; yield the URL, and stop when the block ends."""
    port = free_port("127.0.0.1")
    process = subprocess.Popen(
        [sys.executable, "-m", "app.cli", "up", "--port", str(port), "--data", str(data_dir)],
        env=os.environ | {"STREAMLINE_TASK_DATA": str(mirror.absolute())},
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        with Streamline(url) as service:
            deadline = time.monotonic() + _START_SECONDS
            while not service.ready():
                if process.poll() is not None or time.monotonic() > deadline:
                    sys.exit("the service did not start")
                time.sleep(0.2)
        yield url
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()
