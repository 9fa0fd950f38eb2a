"""Where the names of a plot's dots go, so that none covers another one or a dot."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from app.report.svg import WIDTH, width

Dot = tuple[float, float]
"""Its centre."""

RADIUS: Final = 6.0
"""Of a dot."""
_HEIGHT: Final = 14.0
_GAP: Final = 3.0


@dataclass(frozen=True)
class Box:
    """A rectangle on the page; y grows downwards."""

    left: float
    top: float
    right: float
    bottom: float

    def meets(self, other: "Box") -> bool:
        """Whether the two share more than an edge."""
        return (
            self.left < other.right and other.left < self.right and self.top < other.bottom and other.top < self.bottom
        )


@dataclass(frozen=True)
class Label:
    """A name in its place: where its baseline begins, and how much room it takes."""

    x: float
    baseline: float
    box: Box


def place(
    names: Sequence[str], dots: Sequence[Dot], *, left: float, top: float, bottom: float, others: Sequence[Box] = ()
) -> list[Label | None]:
    """A place near each dot for its name, the first ones first; None where everything around is taken.

    Args:
        names: as they are to be drawn.
        dots: one for each name.
        left, top, bottom: what no label leaves; on the right it is the picture.
        others: what else no label covers.
    """
    taken = [*others, *(Box(x - RADIUS, y - RADIUS, x + RADIUS, y + RADIUS) for x, y in dots)]
    found: list[Label | None] = []
    for name, (x, y) in zip(names, dots, strict=True):
        label = next(
            (
                one
                for one in _around(x, y, width(name))
                if one.box.left >= left and one.box.right <= WIDTH and top <= one.box.top and one.box.bottom <= bottom
                if not any(one.box.meets(other) for other in taken)
            ),
            None,
        )
        if label is not None:
            taken.append(label.box)
        found.append(label)
    return found


def _around(x: float, y: float, wide: float) -> Iterator[Label]:
    """Right and left of a dot, above and below it, and the corners between; then the same farther away."""
    for away in (RADIUS + _GAP, 2.5 * RADIUS + _GAP):
        for left, top in (
            (x + away, y - _HEIGHT / 2),
            (x - away - wide, y - _HEIGHT / 2),
            (x - wide / 2, y - away - _HEIGHT),
            (x - wide / 2, y + away),
            (x + away / 2, y - away - _HEIGHT),
            (x - away / 2 - wide, y - away - _HEIGHT),
            (x + away / 2, y + away),
            (x - away / 2 - wide, y + away),
        ):
            yield Label(left, top + _HEIGHT - _GAP, Box(left, top, left + wide, top + _HEIGHT))
