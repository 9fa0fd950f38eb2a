"""Markdown that somebody else wrote, as HTML that can do nothing but be read."""

from functools import lru_cache
from html import escape

import nh3
from markdown_it import MarkdownIt

_MARKDOWN = MarkdownIt("commonmark", {"html": True, "linkify": False}).enable(["table", "strikethrough"])
_LONGEST = 128 << 10
"""Characters. What is longer is shown as it is: hostile Markdown of a megabyte takes many seconds to parse."""


@lru_cache(maxsize=64)
def render_markdown(text: str) -> str:
    """HTML of a card's Markdown: no scripts, styles, forms, frames and events, whatever its own HTML holds.

    Pictures of other places are left out: whoever looks at a page here is seen by nobody else.
    """
    if len(text) > _LONGEST:
        return f"<pre>{escape(text)}</pre>"
    return nh3.clean(_MARKDOWN.render(text), attribute_filter=_filter)


def _filter(element: str, attribute: str, value: str) -> str | None:
    return None if element == "img" and attribute == "src" and not value.startswith("data:") else value
