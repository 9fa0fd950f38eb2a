"""What is done: one entry per finished stage, with the hashes of its inputs and outputs.

A stage is skipped when its entry's inputs are what they would be now and every output file is there with the recorded
bytes. The ledger is replaced atomically after each stage, so a killed engine leaves a stage done or not, never half.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from worker.engine.context import write_json

LEDGER_FILE = "ledger.json"


@dataclass(frozen=True)
class Entry:
    """One finished stage: a hash of what it read, path -> {sha256, size} of what it wrote, and its wall time."""

    stage: str
    inputs: str
    outputs: Mapping[str, Mapping[str, Any]]
    seconds: float

    @property
    def hashes(self) -> dict[str, str]:
        """Relative path -> sha256 of the outputs."""
        return {path: str(output["sha256"]) for path, output in self.outputs.items()}


class Ledger:
    """The ledger of one workspace. A missing or unreadable file is an empty ledger: everything runs again."""

    def __init__(self, workspace: Path) -> None:
        self._workspace = workspace
        self._entries: dict[str, Entry] = {}
        try:
            for entry in json.loads((workspace / LEDGER_FILE).read_text(encoding="utf-8"))["stages"]:
                self._entries[entry["stage"]] = Entry(**entry)
        except (OSError, ValueError, KeyError, TypeError):
            self._entries = {}

    def entry(self, stage: str) -> Entry | None:
        """Return a stage's entry, done or stale."""
        return self._entries.get(stage)

    def is_done(self, stage: str, inputs: str, released: Collection[str] = ()) -> bool:
        """Tell whether the stage was finished with these inputs and its outputs are intact, byte for byte.

        What lay in the directories `released` may be gone.
        """
        entry = self._entries.get(stage)
        if entry is None or entry.inputs != inputs:
            return False
        gone = tuple(f"{directory}/" for directory in released)
        return all(path.startswith(gone) or self._intact(path, output) for path, output in entry.outputs.items())

    def _intact(self, path: str, output: Mapping[str, Any]) -> bool:
        file = self._workspace / path
        return file.is_file() and file.stat().st_size == output["size"] and sha256_of_file(file) == output["sha256"]

    def record(self, stage: str, inputs: str, outputs: Iterable[str], seconds: float) -> Entry:
        """Enter a finished stage and write the ledger, once the outputs are on the disk.

        Args:
            stage: its name.
            inputs: hash of what it read.
            outputs: paths relative to the workspace; a directory stands for all files in it.
            seconds: wall time.
        """
        files = sorted({file for name in outputs for file in _files(self._workspace / name)})
        # The disk and the processor at the same time: a large checkpoint takes both for seconds.
        with ThreadPoolExecutor(1, thread_name_prefix="flush") as flusher:
            flushed = [flusher.submit(_flush, file) for file in files]
            hashes = {
                str(file.relative_to(self._workspace)): {"sha256": sha256_of_file(file), "size": file.stat().st_size}
                for file in files
            }
        for done in flushed:
            done.result()  # a full disk can show as late as that
        self._entries[stage] = Entry(stage, inputs, hashes, seconds)
        write_json(self._workspace / LEDGER_FILE, {"stages": [asdict(entry) for entry in self._entries.values()]})
        return self._entries[stage]


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        return [file for file in path.rglob("*") if file.is_file()]
    return [path] if path.is_file() else []


def sha256_of_file(path: Path) -> str:
    """Return the sha256 of a file's bytes, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
