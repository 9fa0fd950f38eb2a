"""Names of dots: none covers another, none covers a dot, none leaves the picture."""

from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from app.report.labels import RADIUS, Box, place
from app.report.svg import WIDTH

dots = st.tuples(st.floats(60, WIDTH - 30), st.floats(50, 260))


@given(points=st.lists(st.tuples(st.text("abc", min_size=1, max_size=20), dots), max_size=12))
def test_names_cover_neither_each_other_nor_a_dot(points: list[tuple[str, tuple[float, float]]]) -> None:
    centres = [dot for _, dot in points]
    labels = place([name for name, _ in points], centres, left=52, top=26, bottom=270)
    boxes = [label.box for label in labels if label]
    assert not any(one.meets(other) for one, other in combinations(boxes, 2))
    assert not any(box.meets(Box(x - RADIUS, y - RADIUS, x + RADIUS, y + RADIUS)) for box in boxes for x, y in centres)
    assert all(box.left >= 52 and box.right <= WIDTH and box.top >= 26 and box.bottom <= 270 for box in boxes)


@given(name=st.text("abc", min_size=1, max_size=20), dot=dots)
def test_a_dot_alone_always_has_its_name(name: str, dot: tuple[float, float]) -> None:
    assert place([name], [dot], left=52, top=26, bottom=270)[0] is not None


def test_where_a_dozen_dots_are_one_the_first_ones_keep_their_names() -> None:
    labels = place(["layer 0.25"] * 12, [(200.0, 150.0)] * 12, left=52, top=26, bottom=270)
    named = [label is not None for label in labels]
    assert named == sorted(named, reverse=True)
    assert 4 <= sum(named) < 12


def test_a_name_leaves_free_what_else_is_drawn() -> None:
    whisker = Box(150, 148, 260, 152)
    (label,) = place(["loss kd"], [(200.0, 150.0)], left=52, top=26, bottom=270, others=[whisker])
    assert label is not None
    assert not label.box.meets(whisker)
