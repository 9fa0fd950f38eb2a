"""Options and arguments that several commands share, and how all of them print JSON."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from app.core.architectures import BLOCK_KINDS

WindowsOption = Annotated[
    int | None, typer.Option(help="Separate windows of one score table, with a replacement each.")
]
RoundsOption = Annotated[
    int | None, typer.Option(help="Iterative: rounds that each remove, replace and score anew what is left.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else on standard output.")]
JobArgument = Annotated[
    str,
    typer.Argument(
        metavar="ID",
        help="The job's id as `submit` printed it, or 4 characters of it and more: as many as no other begins with.",
    ),
]
SpecArgument = Annotated[
    Path | None,
    typer.Argument(
        metavar="[SPEC]", help="The whole request as a file, TOML or JSON (see `init`); options override it."
    ),
]
TimeoutOption = Annotated[
    float | None,
    typer.Option(help="Stop waiting after this many seconds (exit 3; the job goes on).", min=0, max=10_000_000),
]
SummaryOption = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Append the outcome as Markdown [GITHUB_STEP_SUMMARY].")
]
JunitOption = Annotated[Path | None, typer.Option(metavar="FILE", help="Write JUnit XML: a test case per gate.")]
KINDS = ", ".join(BLOCK_KINDS)
DataOption = Annotated[
    Path | None, typer.Option("--data", help="Data directory [STREAMLINE_DATA_DIR; streamline-data].")
]


def print_json(value: Any) -> None:
    """Print one JSON value on standard output."""
    typer.echo(json.dumps(value, indent=2))
