"""The windows that were cut, in words, and the table of scores that tells why."""

from collections.abc import Mapping
from typing import Any

Cells = dict[tuple[int, int], float]


def named(run: tuple[int, int]) -> str:
    """`layers 5 to 12`, or `layer 5`."""
    start, end = run
    return f"layer {start}" if end - start == 1 else f"layers {start} to {end - 1}"


def scored(scores: Mapping[str, Any]) -> tuple[str, bool, Cells]:
    """The metric's name, whether more is better, and the score of each (first layer, size) that has one.

    A metric that only ranks a shortlist has few scores: then those that made the shortlist are the picture.
    """
    shortlist = scores.get("shortlisted_by")
    table, metric = scores["table"], scores["metric"]
    higher = scores["better"] == "higher"
    if shortlist:
        table, metric, higher = shortlist["table"], shortlist["metric"], True
    cells = {
        (start, column + 1): float(value)
        for start, row in enumerate(table)
        for column, value in enumerate(row)
        if value is not None
    }
    return metric, higher, cells
