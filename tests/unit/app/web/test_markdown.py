import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.web.markdown import render_markdown

TAG = re.compile(r"<[^>]*>")
ALIVE = re.compile(
    r"<\s*(script|style|iframe|object|embed|form|input|base|meta|link|svg)\b|\son\w+\s*=|javascript:", re.IGNORECASE
)


def alive(html: str) -> list[str]:
    """Tags that could do something; what stands between tags is only text."""
    return [tag for tag in TAG.findall(html) if ALIVE.search(tag)]


def test_a_card_is_rendered() -> None:
    html = render_markdown("# Title\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n[here](https://x.example) `code`")
    assert "<h1>Title</h1>" in html
    assert "<td>1</td>" in html
    assert 'href="https://x.example"' in html


@pytest.mark.parametrize(
    "text",
    [
        "<script>alert(1)</script>",
        "<img src=x onerror=alert(1)>",
        "[x](javascript:alert(1))",
        "<a href='javascript:alert(1)'>x</a>",
        "<iframe src='https://x.example'></iframe>",
        "<style>* { display: none }</style>",
        "<svg><script>1</script></svg>",
        '<form action="/v1/jobs"><input></form>',
    ],
)
def test_nothing_in_a_card_can_run(text: str) -> None:
    assert alive(render_markdown(text)) == []


WORDS = ["<", ">", "script", "img", " onload=", "javascript:", "](", "[", ")", "\n", '"', "'", "&", "x", "svg", "/"]


@given(text=st.lists(st.sampled_from(WORDS), max_size=30).map("".join))
def test_no_mixture_of_pieces_makes_anything_alive(text: str) -> None:
    assert alive(render_markdown(text)) == []


def test_pictures_of_other_places_are_left_out() -> None:
    assert "elsewhere" not in render_markdown("![x](https://elsewhere.example/x.png)")


def test_a_card_too_long_to_be_parsed_is_shown_as_it_is_and_at_once() -> None:
    shown = render_markdown("[" * (1 << 20) + "<script>")
    assert shown.startswith("<pre>[[[")
    assert alive(shown) == []
