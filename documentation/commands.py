"""The `streamline` command: from the help of each of its commands."""

import textwrap
from collections.abc import Iterator
from typing import Any, Final

from typer.main import get_command

from app.cli import exits
from app.cli.application import application
from documentation.tables import code, prose, table

_ABOVE = """# Command line

`streamline COMMAND --help` says the same in a terminal. Commands that ask a service find it by `STREAMLINE_URL`
(`http://127.0.0.1:8000` without it) and show it the key in `STREAMLINE_API_KEY`. `up`, `api`, `worker`, `migrate`,
`gc` and `fsck` read the service's [settings](settings.md) and run where it runs; `keys` does so too, or asks over HTTP
([Keys and limits](../operate/keys.md)). A job's `ID` may be as much of its beginning as no other job's id has. `--json`
prints JSON and nothing else on standard output.

## Exit codes

"""

_CODES: Final = (
    (exits.PASSED, "done; of a job that was waited for: it succeeded and passed its gates"),
    (exits.FAILED_OR_GATE_MISSED, "the job failed or missed a gate; what `verify` and `fsck` look at is not as it was"),
    (exits.CANCELLED, "the job was cancelled"),
    (exits.TIMED_OUT, "not finished within `--timeout`; the job goes on"),
    (exits.NOT_ALLOWED, "the key is missing, not valid, or does not allow it"),
    (exits.BAD_USAGE, "bad usage, a request that was refused, or no service at the address; one sentence says why"),
    (exits.INTERRUPTED, "Ctrl-C: the waiting has ended, and nothing was cancelled"),
)


def page() -> str:
    """The page."""
    codes = table(("code", "meaning"), [(str(number), meaning) for number, meaning in _CODES])
    return _ABOVE + codes + "\n" + "\n".join(_commands(get_command(application), "streamline", None))


def _commands(command: Any, name: str, parent: Any) -> Iterator[str]:
    context = command.context_class(command, info_name=name, parent=parent)
    inner = getattr(command, "commands", None)
    if inner is None:
        yield _described(command, context)
        return
    for each, sub in inner.items():
        if not sub.hidden:
            yield from _commands(sub, each, context)


def _described(command: Any, context: Any) -> str:
    usage = context.command_path
    arguments = [piece for piece in command.collect_usage_pieces(context) if piece != "[OPTIONS]"]
    lines = [f"## {usage}\n", f"`{' '.join([usage, '[OPTIONS]', *arguments])}`\n"]
    lines += [_help(paragraph) + "\n" for paragraph in textwrap.dedent(command.help or "").strip().split("\n\n")]
    rows = [
        [code(record[0].replace(" range>", ">")), prose(record[1])]
        for parameter in command.get_params(context)
        if (record := parameter.get_help_record(context)) and not record[0].endswith("--help")
    ]
    if rows:
        lines.append(table(("argument or option", "meaning"), rows))
    return "\n".join(lines)


def _help(paragraph: str) -> str:
    text = " ".join(paragraph.split())
    example, colon, command = text.partition("Example: ")
    return f"{example}Example: `{command}`" if colon and not example else prose(text)
