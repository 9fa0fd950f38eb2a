"""The `streamline` command. Modules are imported by the command that needs them, so that `--help` comes at once."""

import sys


def main() -> None:
    """Entry point: one sentence and an exit code for whatever goes wrong, never a traceback."""
    from app.cli.application import run

    sys.exit(run(sys.argv[1:]))
