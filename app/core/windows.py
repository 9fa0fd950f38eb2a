"""From a table of scores to the windows that go: the best one, or the best several that lie apart."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from app.core.selection import Better, SelectionError

Table = Sequence[Sequence[float | None]]
"""``table[i][n - 1]`` = score of the window [i, i + n), None where there is none."""


def best_window(table: Table, size: int, better: Better = "higher", first: int = 0) -> tuple[int, float]:
    """Return (start, score) of the window of `size` layers with the best score; the first one on a tie.

    Args:
        table: of the scores.
        size: layers in the window, at least 1.
        better: whether the best score is the highest or the lowest.
        first: the lowest start that is allowed.

    Raises:
        SelectionError: no window of that size fits, or its scores are not finite.
    """
    ((start, _, score),) = best_windows(table, size, 1, better, first, least=size)
    return start, score


def best_windows(
    table: Table, total: int, count: int, better: Better = "higher", first: int = 0, least: int = 1
) -> list[tuple[int, int, float]]:
    """Return the `count` windows (start, end, score) of `total` layers together whose scores have the best sum.

    At least one layer stays between two windows: without one they would be one window, which has a score of its own.
    Why the sum: for small angles a cosine is one minus half the squared angle by which a window turns the hidden state,
    and squares of independent errors add up. Exact, by dynamic programming over (windows so far, end, layers spent);
    on a tie the windows that end first win.

    Args:
        table: of the scores.
        total: layers of all windows together.
        count: how many windows, at least 1.
        better: whether the best scores are the highest or the lowest.
        first: the lowest start that is allowed.
        least: layers in each window, at least 1.

    Raises:
        SelectionError: no such windows fit, or their scores are not finite.
    """
    sign, layers = (1.0 if better == "higher" else -1.0), len(table)
    # sums[end][spent]: the best sum of the windows so far, of `spent` layers, none of which reaches past `end`.
    sums = [[0.0, *[-math.inf] * total] for _ in range(layers + 1)]
    last: list[list[list[tuple[int, int]]]] = []
    for _ in range(count):
        longer = [[-math.inf] * (total + 1) for _ in range(layers + 1)]
        places = [[(0, 0)] * (total + 1) for _ in range(layers + 1)]
        for end in range(1, layers + 1):
            for spent in range(least, total + 1):
                longer[end][spent], places[end][spent] = longer[end - 1][spent], places[end - 1][spent]
                for start in range(max(first, end - spent), end - least + 1):
                    size = end - start
                    score = table[start][size - 1] if size <= len(table[start]) else None
                    if score is None or not math.isfinite(score):
                        continue
                    value = sums[max(start - 1, 0)][spent - size] + sign * score
                    if value > longer[end][spent]:
                        longer[end][spent], places[end][spent] = value, (start, end)
        sums = longer
        last.append(places)
    if sums[layers][total] == -math.inf:
        what = f"no window of {total} layers has" if count == 1 else f"no {count} windows of {total} layers have"
        raise SelectionError("/target", f"{what} a finite score in a model of {layers} layers")
    found: list[tuple[int, int, float]] = []
    end, spent = layers, total
    for places in reversed(last):
        start, stop = places[end][spent]
        score = table[start][stop - start - 1]
        assert score is not None
        found.append((start, stop, score))
        end, spent = max(start - 1, 0), spent - (stop - start)
    return found[::-1]


def runs(layers: Iterable[int]) -> list[tuple[int, int]]:
    """Return layers as the fewest ranges [start, end) that hold them, in order."""
    found: list[tuple[int, int]] = []
    for layer in sorted(set(layers)):
        if found and found[-1][1] == layer:
            found[-1] = (found[-1][0], layer + 1)
        else:
            found.append((layer, layer + 1))
    return found


def in_words(layers: Iterable[int]) -> str:
    """Return layers as a person reads them: ``3 to 5 and 9``."""
    words = [str(start) if end - start == 1 else f"{start} to {end - 1}" for start, end in runs(layers)]
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))
