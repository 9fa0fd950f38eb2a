"""One fresh, isolated interpreter that checks many written checkpoints, each as the verify stage's script does it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from worker.engine.verification import SCRIPT

# Reads one JSON object a line, {"checkpoint", "probe", "trust"}, and answers each with one line: findings or an error.
_SERVE = """
import json, runpy, sys, traceback
script = runpy.run_path(sys.argv[1])
sys.meta_path.insert(0, script["RefuseProject"]())
answers, sys.stdout = sys.stdout, sys.stderr
for line in sys.stdin:
    asked = json.loads(line)
    try:
        found = script["check"](asked["checkpoint"], asked["probe"], "float32", "cpu", trust=asked["trust"])
    except Exception:
        found = {"error": traceback.format_exc()[-3000:]}
    print(json.dumps(found), file=answers, flush=True)
"""


class FreshProcess:
    """Starts at the first question, ends with the context."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._scratch = tempfile.TemporaryDirectory()

    def __enter__(self) -> FreshProcess:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            assert self._process.stdin
            assert self._process.stdout
            self._process.stdin.close()
            self._process.stdout.close()
            self._process.wait(timeout=120)
        self._scratch.cleanup()

    def findings(self, checkpoint: Path, probe: Path, *, trust: bool) -> dict[str, Any]:
        """What the script found about a checkpoint; fails with its traceback where it did not get to the end."""
        process = self._process or self._start()
        assert process.stdin
        assert process.stdout
        asked = {"checkpoint": str(checkpoint), "probe": str(probe), "trust": trust}
        process.stdin.write(json.dumps(asked) + "\n")
        process.stdin.flush()
        found: dict[str, Any] = json.loads(process.stdout.readline())
        assert "error" not in found, found["error"]
        return found

    def _start(self) -> subprocess.Popen[str]:
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_MODULES_CACHE": self._scratch.name,
                       "OMP_NUM_THREADS": "1"}  # fmt: skip
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-c", _SERVE, str(SCRIPT)], cwd=self._scratch.name, env=environment, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        return self._process
