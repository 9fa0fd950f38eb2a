"""What is shown of a download: a bar for the file at hand in a terminal, now and then a line elsewhere."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Protocol

from rich.console import Console
from rich.filesize import decimal
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

_LINE_EVERY_SECONDS: Final = 10.0


class Display(Protocol):
    """Is told what is done with which file, and how far it is."""

    def begin(self, what: str, size: int | None, done: int) -> None:
        """Something begins at `done` of `size` bytes."""

    def at(self, done: int) -> None:
        """So many bytes of it are done."""

    def say(self, sentence: str) -> None:
        """Something went wrong that may pass."""


class Lines:
    """Nothing of what is quick, and a line every ten seconds of what is not."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._what, self._of = "", ""
        self._next = 0.0

    def begin(self, what: str, size: int | None, done: int) -> None:
        """Note what it is."""
        self._what, self._of = what, "" if size is None else f" of {decimal(size)}"
        self._next = time.monotonic() + _LINE_EVERY_SECONDS

    def at(self, done: int) -> None:
        """Say how far it is, now and then."""
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + _LINE_EVERY_SECONDS
            self.say(f"{self._what}  {decimal(done)}{self._of}")

    def say(self, sentence: str) -> None:
        """Say it on one line."""
        self._console.print(sentence, markup=False, highlight=False, soft_wrap=True)


class Bar:
    """A bar with what is done, the rate and the time left."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task = progress.add_task("", total=None)

    def begin(self, what: str, size: int | None, done: int) -> None:
        """Show it in the place of what was before."""
        self._progress.remove_task(self._task)
        self._task = self._progress.add_task(what, total=size, completed=done)

    def at(self, done: int) -> None:
        """Move the bar."""
        self._progress.update(self._task, completed=done)

    def say(self, sentence: str) -> None:
        """Say it above the bar."""
        self._progress.console.print(sentence, markup=False, highlight=False, soft_wrap=True)


@contextmanager
def transfer_display(console: Console) -> Iterator[Display]:
    """A bar in a terminal, lines elsewhere."""
    if not console.is_terminal:
        yield Lines(console)
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=30),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        yield Bar(progress)
