import pytest

from app.api.negotiation import preferred
from app.errors.requests import NotAcceptable

BOTH = ("text/event-stream", "application/json")


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (None, "text/event-stream"),
        ("", "text/event-stream"),
        ("*/*", "text/event-stream"),
        ("application/json", "application/json"),
        ("APPLICATION/JSON", "application/json"),
        ("text/html, application/*;q=0.8, */*;q=0.1", "application/json"),
        ("text/event-stream;q=0, */*", "application/json"),
        ("application/json;q=0.2, text/event-stream;q=0.3", "text/event-stream"),
        ("application/json;q=x, text/event-stream;q=0.3", "text/event-stream"),
    ],
)
def test_the_best_liked_type_wins(accept: str | None, expected: str) -> None:
    assert preferred(accept, BOTH) == expected


def test_what_takes_none_of_them_is_refused_with_the_list() -> None:
    with pytest.raises(NotAcceptable, match=r"text/event-stream and application/json"):
        preferred("image/png, */*;q=0", BOTH)
