"""`streamline keys`: made and revoked on the service's own machine, with its settings."""

import contextlib
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from app.auth.scopes import Scope
from app.cli.exits import UsageError

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

commands = typer.Typer(
    help="API keys. From the first key on, every call needs one. Run this where the service runs.", no_args_is_help=True
)
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else on standard output.")]


@contextlib.contextmanager
def _session() -> "Iterator[Session]":
    from app.db.migrate import migrate
    from app.db.session import connect, session_factory
    from app.settings import load_settings

    settings = load_settings()
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
    as_json: JsonOption = False,
) -> None:
    """Make a key and print it; it is shown this once."""
    from app.auth import keys

    with _session() as session:
        row, key = keys.create(session, name, scope, valid_days=days)
        made = {"id": row.id, "name": row.name, "scope": row.scope, "key": key}
    typer.echo(json.dumps(made) if as_json else key)


@commands.command("list")
def list_(as_json: JsonOption = False) -> None:
    """List the keys."""
    from app.auth import keys

    with _session() as session:
        rows = [
            {"id": row.id, "name": row.name, "scope": row.scope, "revoked": row.revoked_at is not None}
            for row in keys.listing(session)
        ]
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
    for row in [] if as_json else rows:
        typer.echo(f"hf_{row['id']}...  {row['scope']:<7} {'revoked' if row['revoked'] else 'valid':<8} {row['name']}")


@commands.command()
def revoke(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="As `keys list` shows it.")], as_json: JsonOption = False
) -> None:
    """Make a key worthless from now on."""
    from app.auth import keys

    bare = key_id.removeprefix("hf_").removesuffix("...")
    with _session() as session:
        if not keys.revoke(session, bare):
            raise UsageError(f"There is no key {key_id}; `streamline keys list` shows them.")
    typer.echo(json.dumps({"id": bare, "revoked": True}) if as_json else "Revoked.")
