"""Bring the database to the newest schema; two that try at once take turns."""

from pathlib import Path

from alembic import command
from alembic.config import Config

_SCRIPTS = Path(__file__).resolve().parents[2] / "migrations"


def alembic_config(database_url: str) -> Config:
    """Alembic's configuration for this database; there is no alembic.ini."""
    config = Config()
    config.set_main_option("script_location", str(_SCRIPTS))
    config.attributes["database_url"] = database_url
    return config


def migrate(database_url: str) -> None:
    """Run every migration that has not run yet."""
    command.upgrade(alembic_config(database_url), "head")
