"""`none`: the layers are cut and nothing takes their place."""

from __future__ import annotations

from worker.engine.replacements.starts import Start


def build(_: Start) -> None:
    """Return no block."""
    return
