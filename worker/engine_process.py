"""The engine as a child: its own process group, events as JSON lines on a pipe, no secret in its environment."""

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

# What a computation needs from the environment; database and broker addresses, keys and tokens stay behind.
_PASSED_ON = (
    "PATH",
    "HOME",
    "LANG",
    "TMPDIR",
    "LD_LIBRARY_PATH",
    "VIRTUAL_ENV",
    "PYTHONPATH",
    "PYTHONDONTWRITEBYTECODE",
)
_PASSED_ON_PREFIXES = ("LC_", "CUDA_", "NVIDIA_", "NCCL_", "OMP_", "MKL_", "TORCH_", "PYTORCH_")

_OUTPUT_TAIL_BYTES = 2000


def _engine_environment() -> dict[str, str]:
    kept = {
        name: value for name, value in os.environ.items() if name in _PASSED_ON or name.startswith(_PASSED_ON_PREFIXES)
    }
    # Everything that the engine reads is on this machine already; a library must not go and fetch.
    return kept | {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONUNBUFFERED": "1"}


class EngineProcess:
    """A running engine. `events` yields what it says; the end of its output is a None."""

    def __init__(self, arguments: list[str], *, log_file: Path) -> None:
        self._log_file = log_file
        self._log = log_file.open("ab")
        self._log_start = log_file.stat().st_size
        self.events: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "worker.engine", *arguments],
            stdin=subprocess.PIPE,  # the leash: closed by the kernel when this worker dies
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=_engine_environment(),
            start_new_session=True,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, name=f"engine-{self._process.pid}", daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """Process id, and id of the process group."""
        return self._process.pid

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            try:
                event = json.loads(line)
            except ValueError:
                continue  # the last line of a killed process may be torn
            if isinstance(event, dict):
                self.events.put(event)
        self.events.put(None)

    def wait(self, seconds: float) -> int | None:
        """Collect the engine once its output has ended; the exit status, negative for a signal, or None: not yet."""
        try:
            status = self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None
        self._end_group()
        return status

    def stop(self, grace_seconds: float) -> None:
        """SIGTERM to the whole group, SIGKILL to what is left of it after the grace; returns when all are gone."""
        deadline = time.monotonic() + grace_seconds
        self._signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=max(0.0, deadline - time.monotonic()))
        self._end_group()
        self._process.wait()

    def _end_group(self) -> None:
        self._signal(signal.SIGKILL)
        self._reader.join(timeout=5)
        for stream in (self._process.stdin, self._process.stdout, self._log):
            if stream is not None:
                stream.close()

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    def last_output(self) -> str:
        """The end of what the engine wrote to standard error in this attempt."""
        with self._log_file.open("rb") as log:
            log.seek(max(self._log_start, self._log_file.stat().st_size - _OUTPUT_TAIL_BYTES))
            return log.read().decode(errors="replace").strip()
