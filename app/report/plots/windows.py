"""The windows that were cut, as runs of layers, and the table of scores that tells why."""

from collections.abc import Mapping, Sequence
from typing import Any

Cells = dict[tuple[int, int], float]


def runs(layers: Sequence[int]) -> list[tuple[int, int]]:
    """Layer indices as half-open runs: [3, 4, 7] gives [(3, 5), (7, 8)]."""
    found: list[tuple[int, int]] = []
    for layer in sorted(set(layers)):
        if found and found[-1][1] == layer:
            found[-1] = (found[-1][0], layer + 1)
        else:
            found.append((layer, layer + 1))
    return found


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
