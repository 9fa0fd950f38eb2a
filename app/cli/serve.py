"""The API as a process."""

import contextlib
import resource
import socket

import uvicorn

from app.auth.loopback import is_loopback
from app.cli.exits import UsageError
from app.core.leash import follow_parent
from app.settings import Settings, load_settings


def refuse_open_bind(host: str, settings: Settings) -> None:
    """A service without keys is for this machine alone.

    Raises:
        UsageError: `host` can be reached from other machines, and there is no API key.
    """
    if not is_loopback(host) and not _keys_exist(settings):
        raise UsageError(
            f"Refusing to listen on {host}: the service has no API key, and anybody who reached it could use it. "
            "Make one with `streamline keys create NAME --scope admin`, or listen on 127.0.0.1."
        )


def _keys_exist(settings: Settings) -> bool:
    from sqlalchemy.exc import OperationalError, ProgrammingError

    from app.auth import keys
    from app.db.session import connect, session_factory

    engine = connect(settings.database)
    try:
        with session_factory(engine, read_only=True)() as session:
            return keys.exist(session)
    except ProgrammingError:
        return False  # Postgres without tables yet, so without keys
    except OperationalError:
        if engine.dialect.name == "sqlite":  # no file or no table yet
            return False
        raise UsageError("The database does not answer; look at STREAMLINE_DATABASE_URL.") from None
    finally:
        engine.dispose()


def run_api(*, host: str, port: int, leashed: bool) -> None:
    """Serve until SIGTERM; with `leashed`, also until the parent's death."""
    from app.main import create_app

    settings = load_settings()
    refuse_open_bind(host, settings)
    if leashed:
        follow_parent()
    _allow_many_connections()
    uvicorn.run(
        create_app(settings),
        host=host,
        port=port,
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=5,
        server_header=False,
    )


def _allow_many_connections() -> None:
    """As many open files as this user may have: many systems begin with 1,024, and each client that waits is one."""
    _, allowed = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):  # then it stays at what it was
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, allowed))


def free_port(host: str) -> int:
    """A port that nobody listens on now."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port
