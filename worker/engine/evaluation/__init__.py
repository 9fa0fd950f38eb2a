"""Judging: perplexity on held-out text and samples, of the dense, the cut and the pruned model."""

from __future__ import annotations

from worker.engine.evaluation.stage import run

__all__ = ["run"]
