"""Several jobs side by side in a terminal."""

from rich.table import Table

from app.cli.output import print_table, standard_output
from app.report import quantities
from app.report.comparison import Comparison, Entry

_MEASURES = ("smaller", "perplexity", "accuracy", "stability", "speed", "time")


def show_comparison(comparison: Comparison) -> None:
    """A row per job; a star marks a measure on the front: no other job has that much of it at a better quality."""
    console = standard_output()
    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in ("job", "verdict", *_MEASURES):
        table.add_column(column, justify="right" if column in _MEASURES else "left", no_wrap=True)
    for name in comparison.fields:
        table.add_column(name.rpartition(".")[2], overflow="fold")
    for entry in comparison.entries:
        told = [entry.recipe[name] for name in comparison.fields]
        table.add_row(entry.id[:8], entry.verdict or entry.state, *_measures(entry), *told)
    print_table(table, console)
    console.print(
        "*: no other of these jobs is both better and faster (at speed), or both better and smaller (at smaller)."
    )
    if not comparison.same_texts:
        console.print("The perplexities were measured on different texts: they say little about each other.")


def _measures(entry: Entry) -> list[str]:
    return [
        _starred(quantities.percent(entry.sparsity), entry.smallest_for_its_quality) if entry.sparsity else "",
        quantities.ratio(entry.perplexity_ratio) if entry.perplexity_ratio is not None else "",
        quantities.percent(entry.retained_accuracy) if entry.retained_accuracy is not None else "",
        quantities.digits(entry.stability) if entry.stability is not None else "",
        _starred(quantities.ratio(entry.speedup), entry.fastest_for_its_quality) if entry.speedup is not None else "",
        quantities.seconds(entry.seconds) if entry.seconds is not None else "",
    ]


def _starred(text: str, best: bool) -> str:
    return f"{text}*" if best else text
