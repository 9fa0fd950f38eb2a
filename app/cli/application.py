"""The command line: its parts put together, and what each failure means for the exit code."""

import os
from typing import Annotated

import typer

from app.cli import exits, job_commands, keys, model_commands, service_commands, webhooks
from app.cli.exits import NotAllowedError, UsageError

application = typer.Typer(
    name="streamline",
    help="Compress large language models: prune layers, train one light replacement, prove the result.\n\n"
    "Start a service on this machine with `streamline up`, then in another terminal:\n\n"
    "    streamline submit --model demo/stories-24l --sparsity 0.25 --wait",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

for part in (service_commands, job_commands, model_commands):
    application.add_typer(part.commands)
application.add_typer(keys.commands, name="keys")
application.add_typer(webhooks.commands, name="webhooks")


_COMPLETION = {"--show-completion", "--install-completion"}


def _print_version(wanted: bool) -> None:
    from app.version import VERSION

    if wanted:
        typer.echo(f"streamline {VERSION}")
        raise typer.Exit


@application.callback()
def _of_no_command(
    _: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None: ...


def run(arguments: list[str]) -> int:
    """Run the command; the exit code."""
    try:
        if len(arguments) > 1 and arguments[0] in _COMPLETION:
            raise UsageError(f"{arguments[0]} takes no shell: it is for the one that it is typed into.")
        outcome = application(arguments or ["--help"], standalone_mode=False)
    except typer.Exit as stop:
        return stop.exit_code
    except typer.Abort:
        return exits.INTERRUPTED
    except typer.TyperException as error:
        return _say(_sentence(error), exits.BAD_USAGE)
    except UsageError as error:
        return _say(str(error), exits.BAD_USAGE)
    except NotAllowedError as error:
        return _say(str(error), exits.NOT_ALLOWED)
    except OSError as error:
        return _say(exits.sentence_of(error), exits.BAD_USAGE)
    except Exception as error:
        return _known_failure(error)
    return outcome if isinstance(outcome, int) else exits.PASSED


def _sentence(error: typer.TyperException) -> str:
    """What typer would print, on one line; the help of a group without a command stays as it is."""
    said = error.format_message()
    return said if said.startswith("Usage:") else " ".join(said.split())


def _known_failure(error: Exception) -> int:
    from sqlalchemy.exc import OperationalError

    from app.client import ProblemError, UnreachableError
    from app.db.faults import MadeByNewerReleaseError, no_answer
    from app.settings import SettingsError
    from app.storage.blobs import StorageError

    match error:
        case ProblemError(status=401):
            what_to_do = "Look at" if os.environ.get("STREAMLINE_API_KEY", "").strip() else "Set"
            return _say(f"{error} {what_to_do} STREAMLINE_API_KEY.", exits.NOT_ALLOWED)
        case ProblemError(status=403):
            return _say(str(error), exits.NOT_ALLOWED)
        case ProblemError() | UnreachableError() | SettingsError() | StorageError() | MadeByNewerReleaseError():
            return _say(str(error), exits.BAD_USAGE)
        case OperationalError():
            return _say(no_answer(error), exits.BAD_USAGE)
    raise error


def _say(sentence: str, code: int) -> int:
    typer.echo(f"streamline: {sentence}", err=True)
    return code
