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

commands = typer.Typer(
    help="API keys. From the first key on, every call needs one. Run this where the service runs.", no_args_is_help=True
)


@contextlib.contextmanager
def _session(data: Path | None) -> "Iterator[Session]":
    from app.db.migrate import migrate
    from app.db.session import connect, session_factory
    from app.settings import load_settings

    settings = load_settings(data_dir=data)
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    migrate(settings.database)
    engine = connect(settings.database)
    try:
        with session_factory(engine).begin() as session:
            yield session
    finally:
        engine.dispose()


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
    with _session(data) as session:
        row, key = keys.create(session, name, scope, valid_days=days, limits=limits)
        _record(session, "keys create", row.id)
        made = {"id": row.id, "name": row.name, "scope": row.scope, "key": key}
    typer.echo(json.dumps(made) if as_json else key)
    # A key for another directory than the service's would protect nothing.
    where = load_settings(data_dir=data)
    if where.database_url is None:
        typer.echo(f"It is a key of the service that keeps its data in {where.data_dir.absolute()}.", err=True)


@commands.command("list")
def list_(data: DataOption = None, as_json: JsonOption = False) -> None:
    """List the keys."""
    from app.auth import keys

    with _session(data) as session:
        rows = [
            {"id": row.id, "name": row.name, "scope": row.scope, "revoked": row.revoked_at is not None}
            | {"expires_at": row.expires_at.isoformat() if row.expires_at else None}
            | asdict(keys.limits_of(row))
            for row in keys.listing(session)
        ]
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
    for row in [] if as_json else rows:
        typer.echo(f"hf_{row['id']}...  {row['scope']:<7} {'revoked' if row['revoked'] else 'valid':<8} {row['name']}")


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
    for row in [] if as_json else rows:
        who = f"hf_{row['key']}... {row['name']}" if row["key"] else row["name"] or "no key"
        typer.echo(f"{row['time']}  {row['status'] or '':<4} {row['action']:<12} {row['target']}  ({who})")


def _bare(key_id: str) -> str:
    """The id in whatever `keys list` shows of it."""
    return key_id.removeprefix("hf_").removesuffix("...")


def _record(session: "Session", action: str, target: str) -> None:
    """Into the audit log, in the transaction of the change."""
    from app.auth import audit as log

    log.record(session, key_id="", key_name=log.LOCAL_COMMAND, action=action, target=target)
