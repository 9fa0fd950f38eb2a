"""`streamline keys`: made and revoked on the service's own machine, with its settings, or over HTTP."""

import json
import math
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from app.auth.bounds import LONGEST_DAYS, MOST, MOST_BYTES
from app.auth.scopes import Scope
from app.cli.exits import UsageError
from app.cli.key_administration import administration, is_over_http
from app.cli.options import DataOption, JsonOption

if TYPE_CHECKING:
    from app.cli.key_administration import ListedKey

commands = typer.Typer(
    help="API keys. From the first key on, every call needs one.\n\n"
    "Where the service runs, this opens its database: name its data directory with --data or STREAMLINE_DATA_DIR. "
    "Elsewhere, STREAMLINE_URL and STREAMLINE_API_KEY (a key of scope admin) say which service is asked over HTTP. "
    "Where both are set, or a service has run in this directory, that one counts. The first key is made where the "
    "service runs.",
    no_args_is_help=True,
)


@commands.command()
def create(
    name: Annotated[str, typer.Argument(help="Whose key it is, for the list.")],
    scope: Annotated[Scope, typer.Option(help="What it allows; each includes the ones before it.")] = Scope.SUBMIT,
    days: Annotated[float | None, typer.Option(help="Valid for this many days; default: until revoked.")] = None,
    max_queued_jobs: Annotated[
        int | None, typer.Option(min=1, max=MOST, help="Jobs that may wait at a time [no limit].")
    ] = None,
    max_requests_per_minute: Annotated[int | None, typer.Option(min=1, max=MOST, help="[no limit]")] = None,
    max_bytes_per_day: Annotated[
        int | None,
        typer.Option(min=1, max=MOST_BYTES, help="Bytes of request bodies, such as uploads, per day [no limit]."),
    ] = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a key and print it; it is shown this once."""
    from app.auth.keys import Limits

    if not name.strip():
        raise UsageError("A key needs a name, for the list.")
    if days is not None and not (math.isfinite(days) and 0 < days <= LONGEST_DAYS):
        raise UsageError(f"--days must be more than 0 and at most {LONGEST_DAYS:,}, not {days:g}.")
    with administration(data, may_be_new=True) as keys:
        made = keys.create(name, scope, days, Limits(max_queued_jobs, max_requests_per_minute, max_bytes_per_day))
    shown = {"id": made.id, "name": made.name, "scope": made.scope, "key": made.key}
    typer.echo(json.dumps(shown) if as_json else made.key)
    if made.told:
        typer.echo(made.told, err=True)


@commands.command("list")
def list_(data: DataOption = None, as_json: JsonOption = False) -> None:
    """List the keys."""
    with administration(data) as keys:
        found = keys.listing()
    if as_json:
        rows = [
            {"id": key.id, "name": key.name, "scope": key.scope, "revoked": key.state == "revoked"}
            | {"state": key.state, "expires_at": key.expires_at.isoformat() if key.expires_at else None}
            | asdict(key.limits)
            for key in found
        ]
        typer.echo(json.dumps(rows, indent=2))
        return
    lines = [f"hf_{key.id}...  {key.scope:<7} {key.state:<8} {_more(key)}" for key in found]
    for line in lines or ["There is no key yet; `streamline keys create NAME` makes one."]:
        typer.echo(line)


def _more(key: "ListedKey") -> str:
    """The key's name, and in brackets until when it is good and what it may use at most, where that has an end."""
    known = (
        (key.limits.max_queued_jobs, "jobs in the queue"),
        (key.limits.max_requests_per_minute, "requests a minute"),
        (key.limits.max_bytes_per_day, "bytes a day"),
    )
    ends = [f"until {key.expires_at:%Y-%m-%d %H:%M} UTC"] if key.expires_at else []
    told = ends + [f"{most:,} {what}" for most, what in known if most is not None]
    return f"{key.name}  ({', '.join(told)})" if told else key.name


@commands.command()
def revoke(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="As `keys list` shows it.")],
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a key worthless from now on."""
    bare = _bare(key_id)
    with administration(data) as keys:
        if not keys.revoke(bare):
            raise _unknown(key_id)
    typer.echo(json.dumps({"id": bare, "revoked": True}) if as_json else "Revoked.")


@commands.command()
def audit(
    key_id: Annotated[str | None, typer.Option("--key", metavar="ID", help="Only what was done with this key.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="The newest so many.")] = 100,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show who changed, or tried to change, what; the newest last. Only where the service runs."""
    from app.auth import audit as log
    from app.auth.keys import scope_of
    from app.cli.key_database import service_database

    if is_over_http(data):  # another service's log, of some directory that is here, would only mislead
        raise UsageError("The audit log is read where the service runs: name its data directory with --data.")
    with service_database(data) as session:
        if key_id is not None and scope_of(session, _bare(key_id)) is None:
            raise _unknown(key_id)
        rows = [
            {"time": row.time.isoformat(timespec="seconds"), "key": row.key_id, "name": row.key_name}
            | {"action": row.action, "target": row.target, "status": row.status, "request_id": row.request_id}
            for row in log.recent(session, key_id=key_id and _bare(key_id), limit=limit)
        ]
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    if not rows:
        typer.echo("Nothing has been changed or refused yet." if key_id is None else f"Nothing was done with {key_id}.")
    for row in rows:
        who = f"hf_{row['key']}... {row['name']}" if row["key"] else row["name"] or "no key"
        request = f"  request {row['request_id']}" if row["request_id"] else ""
        typer.echo(f"{row['time']}  {row['status'] or '':<4} {row['action']:<12} {row['target']}  ({who}){request}")


def _unknown(key_id: str) -> UsageError:
    return UsageError(f"There is no key {key_id}; `streamline keys list` shows them.")


def _bare(key_id: str) -> str:
    """The id in whatever `keys list` shows of it."""
    return key_id.removeprefix("hf_").removesuffix("...")
