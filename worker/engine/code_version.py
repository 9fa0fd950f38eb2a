"""Which code computes: part of what a stage, or a result kept between runs, depends on."""

from __future__ import annotations

import hashlib
import importlib.metadata
from functools import cache
from pathlib import Path

import app.core
import worker.engine


@cache
def code_version() -> str:
    """Return a hash of the engine's own source and of the versions of what computes."""
    digest = hashlib.sha256()
    for root in (Path(worker.engine.__path__[0]), Path(app.core.__path__[0])):
        for path in sorted(path for pattern in ("*.py", "*.yaml", "*.yml") for path in root.rglob(pattern)):
            digest.update(f"{path.relative_to(root)}\0".encode() + path.read_bytes() + b"\0")
    for package in ("torch", "transformers", "safetensors", "peft", "lm-eval"):
        digest.update(_version(package).encode())
    return digest.hexdigest()


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""
