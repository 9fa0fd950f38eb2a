"""ROUGE-L (Lin, 2004) of a summary, by Google's implementation, which the harness brings along."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any


@cache
def _scorer() -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rougeL"], use_stemmer=True)


def process_results(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """Return the F-measure, 0 to 1, of the written summary against the given one."""
    return {"rougeL": float(_scorer().score(doc["summary"], results[0].strip())["rougeL"].fmeasure)}
