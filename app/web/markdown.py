"""Markdown that somebody else wrote, as HTML that can do nothing but be read."""

import nh3
from markdown_it import MarkdownIt

_MARKDOWN = MarkdownIt("commonmark", {"html": True, "linkify": False}).enable(["table", "strikethrough"])


def render_markdown(text: str) -> str:
    """HTML of a card's Markdown: no scripts, styles, forms, frames and events, whatever its own HTML holds.

    Pictures of other places are left out: whoever looks at a page here is seen by nobody else.
    """
    return nh3.clean(_MARKDOWN.render(text), attribute_filter=_filter)


def _filter(element: str, attribute: str, value: str) -> str | None:
    return None if element == "img" and attribute == "src" and not value.startswith("data:") else value
