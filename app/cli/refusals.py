"""What each failure means: a code for programs, the sentence for people, and the exit code."""

import os
from dataclasses import dataclass

import typer

from app.cli import exits
from app.cli.exits import BrokenOffError, NotAllowedError, UsageError


@dataclass(frozen=True)
class Refusal:
    """A failure that is known, and why."""

    code: str
    """The service's own where it refused, else `unreachable`, `not_allowed` or `bad_usage`."""
    sentence: str
    exit_code: int


def refusal_of(error: Exception) -> Refusal | None:
    """What the error means; None for one that nobody has foreseen, whose trace is wanted."""
    match error:
        case UsageError():
            return Refusal("bad_usage", str(error), exits.BAD_USAGE)
        case NotAllowedError():
            return Refusal("not_allowed", str(error), exits.NOT_ALLOWED)
        case BrokenOffError():
            return Refusal("unreachable", str(error), exits.BAD_USAGE)
        case OSError():
            return Refusal("bad_usage", exits.sentence_of(error), exits.BAD_USAGE)
    return _of_the_service(error)


def say(error: Exception) -> int:
    """Print the sentence on standard error; the exit code. What nobody has foreseen is raised again."""
    refusal = refusal_of(error)
    if refusal is None:
        raise error
    typer.echo(f"streamline: {refusal.sentence}", err=True)
    return refusal.exit_code


def _of_the_service(error: Exception) -> Refusal | None:
    from sqlalchemy.exc import OperationalError

    from app.client import ProblemError, UnreachableError
    from app.db.faults import MadeByNewerReleaseError, no_answer
    from app.settings import SettingsError
    from app.storage.blobs import StorageError

    match error:
        case ProblemError(status=401):
            what_to_do = "Look at" if os.environ.get("STREAMLINE_API_KEY", "").strip() else "Set"
            return Refusal(error.code, f"{error} {what_to_do} STREAMLINE_API_KEY.", exits.NOT_ALLOWED)
        case ProblemError(status=403):
            return Refusal(error.code, str(error), exits.NOT_ALLOWED)
        case ProblemError():
            return Refusal(error.code, str(error), exits.BAD_USAGE)
        case UnreachableError():
            return Refusal("unreachable", str(error), exits.BAD_USAGE)
        case SettingsError() | StorageError() | MadeByNewerReleaseError():
            return Refusal("bad_usage", str(error), exits.BAD_USAGE)
        case OperationalError():
            return Refusal("unreachable", no_answer(error), exits.BAD_USAGE)
    return None
