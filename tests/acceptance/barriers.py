"""Stops a process at an exact point, so that a test can kill whatever it wants to be killed there.

A `sitecustomize` on the processes' PYTHONPATH waits in front of a rename, which is how every output of a stage becomes
visible: what the stage computed is there, and nobody knows yet. The code that runs is the product's own, unchanged.
"""

from pathlib import Path

from tests.service_process import REPOSITORY, wait_until

# The last thing that each stage shows. `publish` is the worker's own; the others are the engine's.
LAST_OUTPUT = {
    "fetch": "model.json",
    "score": "scores.json",
    "select": "selection.json",
    "train": "training.json",
    "assemble": "checkpoint",
    "verify": "verification.json",
    "evaluate": "evaluation.json",
    "benchmark": "benchmark.json",
    "publish": "manifest.json",
}

_SITECUSTOMIZE = """
import os, sys, time

HERE = os.path.dirname(__file__)
STAGES = {stages!r}


def hold(event, arguments):
    if event != "os.rename":
        return
    stage = STAGES.get(os.path.basename(os.fsdecode(arguments[1])))
    if stage is None or os.path.exists(f"{{HERE}}/{{stage}}.open"):
        return
    with open(f"{{HERE}}/{{stage}}.reached", "w"):
        pass
    while not os.path.exists(f"{{HERE}}/{{stage}}.open"):
        time.sleep(0.01)


sys.addaudithook(hold)
"""


class Barriers:
    """One barrier in front of the end of every stage; each holds until it is opened."""

    def __init__(self, directory: Path, *, only: str | None = None) -> None:
        """In `directory`, which is made; with `only` the other stages' are open."""
        directory.mkdir()
        self.directory = directory
        stages = {output: stage for stage, output in LAST_OUTPUT.items()}
        (directory / "sitecustomize.py").write_text(_SITECUSTOMIZE.format(stages=stages))
        for stage in LAST_OUTPUT if only else ():
            if stage != only:
                self.open(stage)

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs in its environment to be held."""
        return {"PYTHONPATH": f"{self.directory}:{REPOSITORY}"}

    def wait(self, stage: str) -> None:
        """Until a process stands in front of the end of this stage."""
        wait_until((self.directory / f"{stage}.reached").exists, seconds=600, what=f"the end of {stage} is reached")

    def open(self, stage: str) -> None:
        """Let everyone pass, those that wait and those to come."""
        (self.directory / f"{stage}.open").touch()

    def close(self, stage: str) -> None:
        """Hold those to come once more."""
        (self.directory / f"{stage}.open").unlink()
