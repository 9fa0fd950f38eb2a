"""`streamline keys`: made and revoked on the service's own machine, with its settings."""

import contextlib
import json
import math
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.auth.bounds import LONGEST_DAYS, MOST, MOST_BYTES
from app.auth.scopes import Scope
from app.cli.exits import UsageError
from app.cli.options import DataOption, JsonOption

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from app.auth.keys import Limits
    from app.db.models import ApiKeyRow
    from app.settings import Settings

commands = typer.Typer(
    help="API keys. From the first key on, every call needs one. Run this where the service runs.", no_args_is_help=True
)


@contextlib.contextmanager
def _session(data: Path | None, *, may_be_new: bool = False) -> "Iterator[Session]":
    """A transaction on the service's database.

    `may_be_new` lets a key be made before the service's first start, in a directory that somebody has named.

    Raises:
        UsageError: no service keeps its data there; going on would found a second one beside that which was meant.
    """
    from app.db.migrate import migrate
    from app.db.session import connect, session_factory
    from app.environment import make_data_dir
    from app.settings import load_settings

    settings = load_settings(data_dir=data)
    if _is_new(settings) and not (may_be_new and "data_dir" in settings.model_fields_set):
        raise UsageError(
            f"No service has run with the directory {settings.data_dir.absolute()}; name the service's own with --data "
            "or STREAMLINE_DATA_DIR."
        )
    make_data_dir(settings)
    migrate(settings.database)
    engine = connect(settings.database)
    try:
        with session_factory(engine).begin() as session:
            yield session
    finally:
        engine.dispose()


def _is_new(settings: "Settings") -> bool:
    return settings.database_url is None and not (settings.data_dir / "streamline.db").exists()


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
    from app.auth import keys
    from app.settings import load_settings

    if not name.strip():
        raise UsageError("A key needs a name, for the list.")
    if days is not None and not (math.isfinite(days) and 0 < days <= LONGEST_DAYS):
        raise UsageError(f"--days must be more than 0 and at most {LONGEST_DAYS:,}, not {days:g}.")
    limits = keys.Limits(max_queued_jobs, max_requests_per_minute, max_bytes_per_day)
    where = load_settings(data_dir=data)
    new = ", which no service has run with yet" if _is_new(where) else ""
    with _session(data, may_be_new=True) as session:
        row, key = keys.create(session, name, scope, valid_days=days, limits=limits)
        _record(session, "keys create", row.id)
        made = {"id": row.id, "name": row.name, "scope": row.scope, "key": key}
    typer.echo(json.dumps(made) if as_json else key)
    # A key for another directory than the service's would protect nothing.
    if where.database_url is None:
        typer.echo(f"It is a key of the service that keeps its data in {where.data_dir.absolute()}{new}.", err=True)


@commands.command("list")
def list_(data: DataOption = None, as_json: JsonOption = False) -> None:
    """List the keys."""
    from app.auth import keys

    with _session(data) as session:
        listed = [(row, state, keys.limits_of(row)) for row, state in keys.listing(session)]
        rows = [
            {"id": row.id, "name": row.name, "scope": row.scope, "revoked": row.revoked_at is not None}
            | {"state": state.value, "expires_at": row.expires_at.isoformat() if row.expires_at else None}
            | asdict(limits)
            for row, state, limits in listed
        ]
        lines = [f"hf_{row.id}...  {row.scope:<7} {state:<8} {_more(row, limits)}" for row, state, limits in listed]
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    for line in lines or ["There is no key yet; `streamline keys create NAME` makes one."]:
        typer.echo(line)


def _more(row: "ApiKeyRow", limits: "Limits") -> str:
    """The key's name, and in brackets until when it is good and what it may use at most, where that has an end."""
    known = (
        (limits.max_queued_jobs, "jobs in the queue"),
        (limits.max_requests_per_minute, "requests a minute"),
        (limits.max_bytes_per_day, "bytes a day"),
    )
    ends = [f"until {row.expires_at:%Y-%m-%d %H:%M} UTC"] if row.expires_at else []
    told = ends + [f"{most:,} {what}" for most, what in known if most is not None]
    return f"{row.name}  ({', '.join(told)})" if told else row.name


@commands.command()
def revoke(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="As `keys list` shows it.")],
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a key worthless from now on."""
    from app.auth import keys

    bare = _bare(key_id)
    with _session(data) as session:
        if not keys.revoke(session, bare):
            raise UsageError(f"There is no key {key_id}; `streamline keys list` shows them.")
        _record(session, "keys revoke", bare)
    typer.echo(json.dumps({"id": bare, "revoked": True}) if as_json else "Revoked.")


@commands.command()
def audit(
    key_id: Annotated[str | None, typer.Option("--key", metavar="ID", help="Only what was done with this key.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="The newest so many.")] = 100,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show who changed, or tried to change, what; the newest last."""
    from app.auth import audit as log

    with _session(data) as session:
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


def _bare(key_id: str) -> str:
    """The id in whatever `keys list` shows of it."""
    return key_id.removeprefix("hf_").removesuffix("...")


def _record(session: "Session", action: str, target: str) -> None:
    """Into the audit log, in the transaction of the change."""
    from app.auth import audit as log

    log.record(session, key_id="", key_name=log.LOCAL_COMMAND, action=action, target=target)
