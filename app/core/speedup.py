"""How a speed-up is told wherever it stands: what it is the median of, and whether it tells which model is faster."""

from collections.abc import Sequence


def too_noisy(interval: Sequence[float]) -> bool:
    """Whether the interval [low, high] leaves open which of the two is faster."""
    low, high = interval
    return low <= 1 <= high


def in_words(interval: Sequence[float] | None, rounds: int | None = None) -> str:
    """Return `median of 5 paired rounds, 95 % 0.97 to 1.12: too noisy to tell`, as far as it is known.

    Args:
        interval: [low, high] of the bootstrap; None where there were not two rounds.
        rounds: how many there were.
    """
    if rounds == 1:
        return "one pair of runs"
    said = f"median of {'' if rounds is None else f'{rounds} '}paired rounds"
    if interval is None:
        return said
    low, high = interval
    return f"{said}, 95 % {low:.2f} to {high:.2f}{': too noisy to tell' if too_noisy(interval) else ''}"
