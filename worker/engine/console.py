"""Progress for a person: one line per stage on stderr, and a short table at the end on stdout."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from app.core.speedup import in_words as speedup_in_words
from app.core.windows import in_words
from worker.engine.events import Event


class ConsoleSink:
    """Shows events as they come: a bar for the stage under way, a line for what is done and what is logged."""

    def __init__(self) -> None:
        self._progress = Progress(
            TextColumn("{task.description:<10}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[unit]}"),
            TimeElapsedColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        self._task: TaskID | None = None
        self._done = ""

    def write(self, event: Event) -> None:
        """Show one event."""
        say = self._progress.console.print
        match event["event"]:
            case "stage_started":
                self._progress.start()
                self._task = self._progress.add_task(event["stage"], total=None, unit="")
                for part in ("window", "round"):
                    if part in event:
                        say(f"  {event['stage']}: {part} {event[part]} of {event[f'{part}s']}", highlight=False)
            case "progress" if self._task is not None:
                self._progress.update(
                    self._task, completed=event["done"], total=event["total"], unit=event["unit"]
                )  # fmt: skip
            case "stage_finished":
                if self._task is not None:
                    self._progress.remove_task(self._task)
                    self._task = None
                self._done = event["stage"]
                how = "done before" if event["skipped"] else f"{event['seconds']:.1f} s"
                say(f"[green]✓[/green] {event['stage']:<10} {how}", highlight=False)
            case "log":
                say(f"  {event['message']}", highlight=False, markup=False)
            case "failed" | "finished":
                self.close()

    def stopped(self) -> str:
        """What to say to who has stopped the run."""
        if not self._done:
            return "stopped; the same command goes on after the last finished stage, if one was."
        return f"stopped; the same command goes on after `{self._done}`."

    def close(self) -> None:
        """Take the bar away."""
        self._progress.stop()


def print_summary(report: Mapping[str, Any], console: Console | None = None) -> None:
    """Print what came out: layers removed, parameters, perplexities, speed."""
    console = console or Console()
    metrics = report["metrics"]
    table = Table(title=f"removed layers {in_words(report['removed_layers'])}")
    for name in ("", "dense", "cut", "pruned"):
        table.add_column(name, justify="left" if not name else "right")
    perplexity = metrics.get("perplexity", {})
    for text in perplexity.get("dense", {}):
        values = (perplexity[variant][text] for variant in ("dense", "cut", "pruned"))
        table.add_row(f"perplexity, {text}", *(_number(value) or "not a number" for value in values))
    accuracy, stability = metrics.get("accuracy", {"dense": {}}), metrics.get("stability", {})
    for task, value in accuracy["dense"].items():
        stable = "" if stability[task] is None else f"stability {stability[task]:.3f}"
        table.add_row(f"accuracy, {task}", f"{value:.1%}", stable, f"{accuracy['pruned'][task]:.1%}")
    for label, key in (("parameters", "parameters"), ("decode tokens/s", "decode_tokens_per_second")):
        if values := metrics.get(key):
            table.add_row(label, _number(values.get("dense")), "", _number(values.get("pruned")))
    console.print(table)
    if (speedup := metrics.get("speedup")) is not None:
        rounds = (report.get("benchmark") or {}).get("repeats")
        said = speedup_in_words((metrics.get("intervals") or {}).get("speedup"), rounds)
        console.print(f"decoding speed ×{speedup:.2f}: {said}", highlight=False)


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,}" if isinstance(value, int) else f"{value:,.2f}"
