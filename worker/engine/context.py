"""What every stage is given: the recipe, where to work, whom to tell."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from worker.engine.events import Emitter
from worker.engine.recipe import Recipe

REPLACEMENT = "replacement.safetensors"
SELF_TEXT_FILE = "text/calibration.jsonl"
WINDOWS = "windows"
"""Where each of several windows has a directory of its own, counted from 1."""


@dataclass(frozen=True)
class StageContext:
    """Handed to each stage's ``run(context) -> None``, which writes its outputs into the workspace.

    Attributes:
        recipe: the resolved request.
        workspace: the ``--out`` directory; outputs have fixed names in it.
        cache: kept between runs (sampled text); safe to delete.
        emit: progress, metrics and log lines.
        device: ``cpu`` or ``cuda``, already resolved.
        save_every_seconds: wall time between two states of a training run on disk.
        processes: how many train together, this one among them.
        activation_bytes: room on disk for hidden states to train on; half of what is free where None.
        home: the workspace where what was found out about the dense model lies; this one where None.
        previous: the workspace of the round before, whose checkpoint is this round's model; None in the first.
        memo: objects worth keeping in memory from one stage to the next (the loaded decoder); never a source of truth.
    """

    recipe: Recipe
    workspace: Path
    cache: Path
    emit: Emitter
    device: str
    save_every_seconds: float = 60.0
    processes: int = 1
    activation_bytes: int | None = None
    home: Path | None = None
    previous: Path | None = None
    memo: dict[str, Any] = field(default_factory=dict)

    @property
    def model(self) -> Path:
        """The directory of the dense model."""
        return Path(self.recipe.model.path)

    @property
    def self_text(self) -> Path:
        """The text that was sampled from the dense model, where the recipe names no other."""
        return (self.home or self.workspace) / SELF_TEXT_FILE

    def window(self, number: int) -> Path:
        """The directory of one of the windows: what was trained for it lies there."""
        several = self.recipe.selection.windows > 1
        return self.workspace / WINDOWS / str(number + 1) if several else self.workspace

    @property
    def temporary(self) -> Path:
        """A scratch directory for the stage under way; the pipeline empties it before and after each stage."""
        path = self.workspace / "tmp"
        path.mkdir(parents=True, exist_ok=True)
        return path

    def seed(self, purpose: str) -> int:
        """Return a seed for one purpose, so that a resumed run draws what an undisturbed one does."""
        digest = hashlib.sha256(f"{self.recipe.seed}:{purpose}".encode()).digest()
        return int.from_bytes(digest[:4], "big")

    def read_json(self, name: str) -> Any:
        """Return the parsed JSON of a finished stage's output."""
        return json.loads((self.workspace / name).read_text(encoding="utf-8"))

    def read_home_json(self, name: str) -> Any:
        """Return the parsed JSON of what was found out about the dense model."""
        return json.loads(((self.home or self.workspace) / name).read_text(encoding="utf-8"))

    def write_json(self, name: str, data: Any) -> None:
        """Write an output atomically: under another name, flushed to disk, renamed."""
        write_json(self.workspace / name, data)


StageFunction = Callable[[StageContext], None]


def write_json(path: Path, data: Any) -> None:
    """Write JSON atomically (stage, fsync, rename); a killed process leaves the old file or the new one."""
    write_bytes(path, (json.dumps(data, indent=1, sort_keys=True, allow_nan=False) + "\n").encode())


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file atomically (stage, fsync, rename)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Workers share the cache: two that write one file at once must not write into each other's staged bytes.
    staged = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.part")
    try:
        with staged.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        staged.replace(path)
    finally:
        staged.unlink(missing_ok=True)


def sha256_of(value: Mapping[str, Any]) -> str:
    """Return the sha256 of JSON data in its canonical form."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
