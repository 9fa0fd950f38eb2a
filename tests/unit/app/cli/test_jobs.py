"""What the terminal shows of a finished job."""

from __future__ import annotations

from typing import Any

from rich.console import Console

from app.cli.jobs import metrics_table

METRICS: dict[str, Any] = {
    "sparsity": 0.25, "parameters": {"dense": 4000, "pruned": 3000},
    "perplexity": {"dense": {"text": 10.0}, "cut": {"text": None}, "pruned": {"text": 12.5}},
}  # fmt: skip


def shown(metrics: dict[str, Any]) -> str:
    console = Console(width=100)
    with console.capture() as capture:
        console.print(metrics_table(metrics))
    return capture.get()


def test_what_was_not_measured_is_said_and_not_invented() -> None:
    text = shown(METRICS | {"decode_tokens_per_second": {"dense": None, "pruned": 25.0}})
    assert "not measured" in text
    assert "25.0" in text
    assert "not a number" in text
