"""Standard output: drawn for a terminal, plain and on whole lines for logs and other programs."""

import os

from rich.console import Console
from rich.table import Table

_NOBODY_WRAPS = 1000  # columns: a line of a log is as long as what it says, and `grep` finds it


def standard_output() -> Console:
    """As wide as the terminal, or as COLUMNS says; where nothing says, wide enough for every line."""
    console = Console(highlight=False)
    told = console.file.isatty() or "COLUMNS" in os.environ
    return console if told else Console(highlight=False, width=_NOBODY_WRAPS)


def print_table(table: Table, console: Console) -> None:
    """With lines around it in a terminal; elsewhere a row is a line of words."""
    if not console.file.isatty():
        table.box, table.title_justify, table.pad_edge = None, "left", False
    console.print(table)
