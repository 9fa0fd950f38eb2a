"""Bring the database to the newest schema; two that try at once take turns."""

from functools import cache
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from alembic.script.revision import ResolutionError
from alembic.util.exc import CommandError
from sqlalchemy import inspect, text
from sqlalchemy.orm import Session

from app.db.faults import MadeByNewerReleaseError

_SCRIPTS = Path(__file__).resolve().parents[2] / "migrations"


def alembic_config(database_url: str) -> Config:
    """Alembic's configuration for this database; there is no alembic.ini."""
    config = Config()
    config.set_main_option("script_location", str(_SCRIPTS))
    config.attributes["database_url"] = database_url
    return config


def migrate(database_url: str) -> None:
    """Run every migration that has not run yet.

    Raises:
        MadeByNewerReleaseError: the database has had one that this release does not know.
    """
    try:
        command.upgrade(alembic_config(database_url), "head")
    except CommandError as error:
        unknown = error.__cause__
        if not isinstance(unknown, ResolutionError):
            raise
        newest, _ = _revisions()
        raise MadeByNewerReleaseError(unknown.argument, newest) from None


def is_behind(session: Session) -> bool:
    """Whether the database lacks a migration of this release. One that a newer release has migrated does not."""
    if not inspect(session.connection()).has_table("alembic_version"):
        return True
    found = set(session.scalars(text("SELECT version_num FROM alembic_version")))
    heads, known = _revisions()
    return found != heads and found <= known


@cache
def _revisions() -> tuple[frozenset[str], frozenset[str]]:
    """The newest revisions that this release brings along, and all of them."""
    scripts = ScriptDirectory(str(_SCRIPTS))
    return frozenset(scripts.get_heads()), frozenset(one.revision for one in scripts.walk_revisions())
