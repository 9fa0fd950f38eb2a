"""The API as a process."""

import asyncio
import contextlib
import errno
import os
import resource
import socket
from collections.abc import Callable

import structlog
import uvicorn

from app.auth.loopback import is_loopback
from app.cli.exits import UsageError
from app.core.leash import follow_parent
from app.environment import need_data_dir, need_model_roots, unknown_variables
from app.logs import configure_logging, route_everything
from app.settings import Settings, load_settings

_NOT_STARTED = 3

log = structlog.get_logger(__name__)


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
    from app.db.faults import no_answer
    from app.db.session import connect, session_factory

    engine = connect(settings.database)
    try:
        with session_factory(engine, read_only=True)() as session:
            return keys.exist(session)
    except ProgrammingError:
        return False  # Postgres without tables yet, so without keys
    except OperationalError as error:
        if engine.dialect.name == "sqlite":  # no file or no table yet
            return False
        raise UsageError(no_answer(error)) from None
    finally:
        engine.dispose()


def run_api(*, host: str, port: int, leashed: bool) -> None:
    """Serve until SIGTERM; with `leashed`, also until the parent's death."""
    from app.main import create_app

    settings = load_settings()
    need_data_dir(settings)
    need_model_roots(settings)
    refuse_open_bind(host, settings)
    refuse_taken_port(host, port)
    if leashed:
        follow_parent()
    configure_logging()
    route_everything()
    for sentence in unknown_variables(os.environ):
        log.warning("unknown_setting", detail=sentence)
    _allow_many_connections()
    app = create_app(settings)
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        log_config=None,
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=5,
        server_header=False,
    )
    server = _Server(config, app.state.services.watcher.close)
    with contextlib.suppress(KeyboardInterrupt):  # uvicorn raises it once more when all is done
        server.run()
    if not server.started:
        raise SystemExit(_NOT_STARTED)


class _Server(uvicorn.Server):
    """Lets go of those who wait for a job as soon as it is to stop: the lifespan ends only after all requests."""

    def __init__(self, config: uvicorn.Config, let_go: Callable[[], None]) -> None:
        super().__init__(config)
        self._let_go = let_go

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop: nobody is answered before the port is closed, or the answered would come back through it."""
        asyncio.get_running_loop().call_soon(self._let_go)
        await super().shutdown(sockets)


def _allow_many_connections() -> None:
    """As many open files as this user may have: many systems begin with 1,024, and each client that waits is one."""
    _, allowed = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):  # then it stays at what it was
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, allowed))


def refuse_taken_port(host: str, port: int) -> None:
    """Find out before anything is started.

    Raises:
        UsageError: nobody can listen there.
    """
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise UsageError(
                    f"Port {port} of {host} is taken; choose another with --port (0 takes a free one)."
                ) from None
            raise UsageError(
                f"Nobody can listen on port {port} of {host} ({error.strerror}); choose others with --host and --port."
            ) from None


def free_port(host: str) -> int:
    """A port that nobody listens on now."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port
