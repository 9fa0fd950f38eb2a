"""Markdown tables out of plain cells."""

from collections.abc import Iterable, Sequence


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; cells are Markdown, on one line each."""
    lines = [_row(head), _row(["---"] * len(head)), *(_row([_cell(text) for text in row]) for row in rows)]
    return "\n".join([*lines, ""])


def code(text: str) -> str:
    """The text as it is typed; nothing where there is none."""
    return f"`{text}`" if text else ""


def prose(text: str) -> str:
    """A description with nothing in it that Markdown would take for a tag."""
    parts = text.split("`")
    # Between backticks everything stands as it is.
    return "`".join(part if index % 2 else part.replace("<", "&lt;") for index, part in enumerate(parts))


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(text: str) -> str:
    # A bar between backticks ends no cell.
    parts = " ".join(text.split()).split("`")
    return "`".join(part if index % 2 else part.replace("|", "\\|") for index, part in enumerate(parts))
