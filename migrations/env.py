"""Alembic's entry point: one transaction under a lock, so that only one migrates, and timeouts to spare the API."""

from alembic import context
from sqlalchemy import Connection, text

from app.db.models import Base
from app.db.session import connect

_ADVISORY_LOCK = 0x57_12_EA_31  # any number that no other program of this database uses
_LOCK_TIMEOUT = "10s"
_STATEMENT_TIMEOUT = "10min"


def _migrate(connection: Connection) -> None:
    # Of SQLite it would not be assumed; our connections begin each transaction themselves, and as its only writer.
    context.configure(
        connection=connection, target_metadata=Base.metadata, render_as_batch=True, transactional_ddl=True
    )
    with context.begin_transaction():
        if connection.dialect.name == "postgresql":
            # Wait for a migration under way first; only then bound the wait for table locks.
            connection.execute(text(f"SELECT pg_advisory_xact_lock({_ADVISORY_LOCK})"))
            connection.execute(text(f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT}'"))
            connection.execute(text(f"SET LOCAL statement_timeout = '{_STATEMENT_TIMEOUT}'"))
        context.run_migrations()


engine = connect(context.config.attributes["database_url"])
try:
    with engine.connect() as connection:
        _migrate(connection)
finally:
    engine.dispose()
