"""Engines and sessions: the same code over Postgres and over SQLite in WAL mode."""

from typing import Any, Final

from sqlalchemy import Engine, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.orm import Session, sessionmaker

# A server that vanished without a word (its machine, the network) is given up after half a minute: libpq's own default
# is to wait for the kernel, which takes up to two hours.
_POSTGRES_PATIENCE: Final = {
    "connect_timeout": 10,
    "tcp_user_timeout": 30_000,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 4,
}


def connect(database_url: str) -> Engine:
    """Make the SQLAlchemy engine.

    SQLite: WAL, foreign keys on, and every transaction begins IMMEDIATE, so that two writers queue up (busy timeout)
    instead of failing half-way with "database is locked" when a read transaction turns into a write.
    """
    url = make_url(database_url)
    if url.get_backend_name() == "sqlite":
        engine = create_engine(url, connect_args={"timeout": 30, "check_same_thread": False})
        event.listen(engine, "connect", _configure_sqlite)
        event.listen(engine, "begin", _begin_immediate)
        return engine
    return create_engine(url, pool_pre_ping=True, pool_size=10, max_overflow=20, connect_args=_POSTGRES_PATIENCE)


def session_factory(engine: Engine, *, read_only: bool = False) -> sessionmaker[Session]:
    """Sessions whose objects stay readable after the commit.

    `read_only` sessions never wait for SQLite's one writer; a write through them is a bug.
    """
    return sessionmaker(engine.execution_options(read_only=read_only), expire_on_commit=False)


def _configure_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # transactions are begun by _begin_immediate, not by the driver
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "busy_timeout=30000"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_immediate(connection: Any) -> None:
    read_only = connection.get_execution_options().get("read_only", False)
    connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")
