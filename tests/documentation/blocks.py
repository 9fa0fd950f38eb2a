"""The code blocks of README and docs, and what a reader fills in where they leave a place."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from documentation.pages import PAGES
from tests.conftest import REPOSITORY

WRITTEN = (REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md")))
"""Every page that somebody wrote."""

_FENCE = re.compile(r'^(?P<indent> *)```(?P<language>\w+)(?: title="(?P<title>[^"]+)")?$')


@dataclass(frozen=True)
class Block:
    """A fenced block; `title` is what stands above it on the site."""

    page: str
    line: int
    language: str
    title: str
    text: str

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"


def texts() -> dict[str, str]:
    """Every page by its path from the repository's root, those that are made from the code among them."""
    written = {_name(path): path.read_text(encoding="utf-8") for path in WRITTEN}
    return written | {f"docs/{path}": page() for path, page in PAGES.items()}


def blocks_of(page: str, text: str) -> Iterator[Block]:
    """The blocks of a page; a fence that says nothing of its language, or is never closed, is an error."""
    lines = enumerate(text.splitlines(), start=1)
    for number, line in lines:
        if not line.lstrip().startswith("```"):
            continue
        fence = _FENCE.match(line)
        assert fence, f"{page}:{number} opens a block without a language, or with something else behind it: {line}"
        inside: list[str] = []
        for _, inner in lines:
            if inner.strip() == "```":
                break
            inside.append(inner.removeprefix(fence["indent"]))
        else:
            raise AssertionError(f"{page}:{number}: the block is never closed")
        yield Block(page, number, fence["language"], fence["title"] or "", "\n".join(inside) + "\n")


def written_blocks() -> list[Block]:
    return [block for path in WRITTEN for block in blocks_of(_name(path), path.read_text(encoding="utf-8"))]


def made_blocks() -> list[Block]:
    return [block for path, page in PAGES.items() for block in blocks_of(f"docs/{path}", page())]


def filled_in(text: str, values: Sequence[tuple[str, str]]) -> str:
    """The text with what the reader puts into it: each pattern is replaced by its value, in order."""
    for pattern, value in values:
        text = re.sub(pattern, lambda _, value=value: value, text)  # type: ignore[misc]
    return text


def inline_code(text: str) -> Iterator[str]:
    """What stands between single backticks, outside of blocks."""
    outside = re.sub(r"^ *```.*?^ *```$", "", text, flags=re.MULTILINE | re.DOTALL)
    yield from (found.replace("\n", " ") for found in re.findall(r"`([^`]+)`", outside))


def _name(path: Path) -> str:
    return path.relative_to(REPOSITORY).as_posix()
