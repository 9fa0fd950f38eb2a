"""Commands that run a service, or look after its database and its store."""

import json
import os
import sys
from typing import Annotated

import typer

from app.cli.options import DataOption, JsonOption

commands = typer.Typer()


@commands.command()
def up(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.", min=0, max=65535)] = 8000,
    data: DataOption = None,
    workers: Annotated[int, typer.Option(help="Worker processes.", min=1, max=64)] = 1,
) -> int:
    """Start everything on this machine: API, worker and reconciler, with SQLite and no other services.

    Ctrl-C stops all of it; the next start on the same data directory goes on where this one stopped.
    """
    from app.cli.embedded import run_embedded

    return run_embedded(host=host, port=port, data_dir=data, workers=workers)


@commands.command()
def api(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.", min=0, max=65535)] = 8000,
    leashed: Annotated[bool, typer.Option(hidden=True)] = False,
) -> None:
    """Start the API alone (the database must be migrated: `streamline migrate`)."""
    from app.cli.serve import run_api

    run_api(host=host, port=port, leashed=leashed)


@commands.command()
def worker() -> None:
    """Start one worker; start as many as there are GPUs."""
    os.execv(sys.executable, [sys.executable, "-m", "worker"])  # noqa: S606 - becomes the worker, no shell


@commands.command()
def migrate(as_json: JsonOption = False) -> None:
    """Bring the database to this version's schema."""
    from app.db.migrate import migrate as run_migrations
    from app.environment import make_data_dir, unknown_variables
    from app.settings import load_settings

    settings = load_settings()
    for sentence in unknown_variables(os.environ):
        typer.echo(f"streamline: {sentence}", err=True)
    make_data_dir(settings)
    run_migrations(settings.database)
    typer.echo(json.dumps({"up_to_date": True}) if as_json else "The database is up to date.")


@commands.command()
def gc(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")] = False,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> int:
    """Remove the bytes that no commit, data set or running job needs (the API does it by itself now and then)."""
    from app.cli.storage import collect_garbage

    return collect_garbage(data, dry_run=dry_run, as_json=as_json)


@commands.command()
def fsck(
    repair: Annotated[
        bool, typer.Option("--repair", help="Move damaged bytes aside, so that importing again mends them.")
    ] = False,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> int:
    """Read and rehash everything in the store: exit 0 when all that is named is there and whole, 1 when not."""
    from app.cli.storage import check_integrity

    return check_integrity(data, repair=repair, as_json=as_json)
