"""Several jobs side by side in a terminal: what came of them, and below it what they did differently."""

from collections.abc import Callable, Iterator, Mapping
from typing import Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from app.cli.output import print_table, standard_output
from app.core.speedup import too_noisy
from app.report import quantities
from app.report.comparison import Comparison, Entry


def _speed(entry: Entry) -> str:
    if entry.speedup is None:
        return ""
    noisy = "?" if entry.speedup_interval and too_noisy(entry.speedup_interval) else ""
    return _starred(quantities.ratio(entry.speedup), entry.fastest_for_its_quality) + noisy


def _starred(text: str, best: bool) -> str:
    return f"{text}*" if best else text


_MEASURES: Final[Mapping[str, Callable[[Entry], str]]] = {
    "smaller": lambda entry: (
        _starred(quantities.percent(entry.sparsity), entry.smallest_for_its_quality) if entry.sparsity else ""
    ),
    "perplexity": lambda entry: "" if entry.perplexity_ratio is None else quantities.ratio(entry.perplexity_ratio),
    "accuracy": lambda entry: "" if entry.retained_accuracy is None else quantities.percent(entry.retained_accuracy),
    "stability": lambda entry: "" if entry.stability is None else quantities.digits(entry.stability),
    "speed": _speed,
    "time": lambda entry: "" if entry.seconds is None else quantities.seconds(entry.seconds),
}


def show_comparison(comparison: Comparison) -> None:
    """A row per job; a star marks a measure on the front: no other job has that much of it at a better quality.

    What the jobs did differently has a line per field below, so that it is there at any width of the terminal.
    """
    console = standard_output()
    measures = [name for name, told in _MEASURES.items() if any(map(told, comparison.entries))]
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("", justify="right")
    table.add_column("job", no_wrap=True)
    for column in ("verdict", *measures):
        table.add_column(column, justify="right" if column in measures else "left", overflow="fold")
    for number, entry in enumerate(comparison.entries, 1):
        table.add_row(str(number), entry.id[:8], entry.verdict or entry.state, *(_MEASURES[m](entry) for m in measures))
    print_table(table, console)
    console.print(
        "*: no other of these jobs is both better and faster (at speed), or both better and smaller (at smaller)."
    )
    if any("?" in _speed(entry) for entry in comparison.entries):
        console.print("?: the 95 % interval of the speed includes 1: too noisy to tell.")
    if not comparison.same_texts:
        console.print("The perplexities were measured on different texts: they say little about each other.")
    _show_differences(comparison, console)


def _show_differences(comparison: Comparison, console: Console) -> None:
    console.print()
    for number, entry in enumerate(comparison.entries, 1):
        console.print(f"{number}: {entry.id}", markup=False, soft_wrap=True)
    if not comparison.fields:
        console.print("They were asked for the same, up to names, labels and gates.")
        return
    console.print()
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("done differently", overflow="fold")
    table.add_column("by which jobs", overflow="fold")
    for name in comparison.fields:
        table.add_row(name, Text(" | ".join(_told(comparison, name))))
    print_table(table, console)


def _told(comparison: Comparison, field: str) -> Iterator[str]:
    """Each value of a field with the numbers of the jobs that have it: a column per job has no room for many."""
    values = dict.fromkeys(entry.recipe[field] for entry in comparison.entries)
    for value in values:
        numbers = [str(number) for number, e in enumerate(comparison.entries, 1) if e.recipe[field] == value]
        yield f"{', '.join(numbers)}: {value or '–'}"
