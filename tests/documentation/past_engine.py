"""An engine that hands in what another one has measured before: the report that the explanation's plots are drawn from.

`write_past_engine` makes a directory that stands on a worker's PYTHONPATH. Everything around the engine is the
product's own: the worker starts it as a process, and judges, signs and publishes what it leaves in the job's workspace,
with the dense model's files in the place of a checkpoint.
"""

import json
import shutil
import sys
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]

_SITECUSTOMIZE = """
import os, sys, traceback

arguments = sys.orig_argv
if "worker.engine" in arguments and "--out" in arguments:
    # Whatever happens, the process ends here: an error in this module alone would be passed over.
    try:
        from tests.documentation.past_engine import hand_in

        hand_in(arguments[arguments.index("--out") + 1])
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)
"""


def write_past_engine(directory: Path) -> Path:
    """Make the directory."""
    directory.mkdir()
    (directory / "sitecustomize.py").write_text(_SITECUSTOMIZE)
    return directory


def hand_in(out: str) -> None:
    """Leave report and checkpoint in the workspace, and tell of each stage."""
    workspace = Path(out)
    report = json.loads((REPOSITORY / "documentation/measured/report.json").read_text())
    (workspace / "report.json").write_text(json.dumps(report))
    shutil.copytree(
        workspace / "source", workspace / "checkpoint", ignore=shutil.ignore_patterns("README.md"), dirs_exist_ok=True
    )
    for stage, seconds in report["stage_seconds"].items():
        for event in ({"event": "stage_started"}, {"event": "stage_finished", "seconds": seconds, "skipped": True}):
            sys.stdout.write(json.dumps(event | {"stage": stage, "time": time.time()}) + "\n")
    sys.stdout.flush()
