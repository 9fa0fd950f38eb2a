"""Options that several commands have, and how they print JSON."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else on standard output.")]
DataOption = Annotated[
    Path | None, typer.Option("--data", help="Data directory of the service [STREAMLINE_DATA_DIR; streamline-data].")
]


def print_json(value: Any) -> None:
    """What `--json` prints."""
    typer.echo(json.dumps(value, indent=2))
