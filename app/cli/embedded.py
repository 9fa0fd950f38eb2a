"""`streamline up`: the API and the workers as children of one process that needs nothing else."""

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from app.cli import exits
from app.cli.exits import UsageError
from app.cli.serve import free_port, refuse_open_bind, refuse_taken_port
from app.client import Streamline
from app.client.calls import DEFAULT_URL
from app.environment import need_data_dir, need_model_roots, unknown_variables
from app.settings import EMBEDDED_BROKER, Settings, load_settings

_READY_SECONDS = 60
_STOP_SECONDS = 30
_RESTART_PAUSE_SECONDS = 1.0


@dataclass
class _Child:
    """One process of the service; started again when it dies."""

    name: str
    arguments: list[str]
    environment: dict[str, str]
    log_file: Path
    process: subprocess.Popen[bytes] | None = field(default=None)
    started_at: float = 0.0

    def start(self) -> None:
        """Start it in a session of its own, so that the terminal's Ctrl-C reaches the parent alone."""
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *self.arguments],
                stdin=subprocess.PIPE,  # the leash
                stdout=log,
                stderr=log,
                env=self.environment,
                start_new_session=True,
            )
        self.started_at = time.monotonic()


def run_embedded(*, host: str, port: int, data_dir: Path | None, workers: int) -> int:
    """Run the service until Ctrl-C or SIGTERM; the exit code.

    Raises:
        UsageError: the data directory is in use, the port is taken, or the address is not this machine's own.
    """
    settings = load_settings(data_dir=data_dir)
    need_data_dir(settings)
    need_model_roots(settings)
    refuse_open_bind(host, settings)
    for sentence in unknown_variables(os.environ):
        _say(sentence)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: stop.set())
    port = port or free_port(host)
    with _sole_owner(settings.data_dir, f"http://{host}:{port}"):
        refuse_taken_port(host, port)
        _prepare(settings)
        children = _children(settings, host, port, workers)
        try:
            for child in children:
                child.start()
            return _supervise(children, f"http://{host}:{port}", settings, stop)
        finally:
            _stop_all(children)


@contextlib.contextmanager
def _sole_owner(data_dir: Path, url: str) -> Iterator[None]:
    """Hold the data directory; the kernel lets go of the lock however this process ends."""
    with (data_dir / "lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            where = lock.read().strip() or "another process"
            raise UsageError(
                f"{data_dir} is in use by the service at {where}; stop it, or choose another --data."
            ) from None
        lock.truncate(0)
        lock.write(url)
        lock.flush()
        yield


def _prepare(settings: Settings) -> None:
    from app.db.migrate import migrate
    from app.db.session import connect, session_factory
    from app.jobs import repository

    migrate(settings.database)
    if settings.broker == EMBEDDED_BROKER:
        # We hold the data directory and started no worker yet: whoever has a lease died with the last service.
        engine = connect(settings.database)
        with session_factory(engine).begin() as session:
            repository.forfeit_leases(session)
        engine.dispose()


def _children(settings: Settings, host: str, port: int, workers: int) -> list[_Child]:
    roots = os.pathsep.join(str(path.resolve()) for path in (settings.model_roots or (Path.cwd(),)))
    environment = os.environ | {
        "STREAMLINE_DATA_DIR": str(settings.data_dir.absolute()),
        "STREAMLINE_MODEL_ROOTS": roots,
    }
    logs = settings.data_dir.absolute() / "logs"
    logs.mkdir(exist_ok=True)
    api = ["app.cli", "api", "--host", host, "--port", str(port), "--leashed"]
    children = [_Child("api", api, environment, logs / "api.log")]
    for number in range(workers):
        name = f"worker-{number}"
        children.append(_Child(name, ["worker", "--leashed"], environment, logs / f"{name}.log"))
    return children


def _supervise(children: list[_Child], url: str, settings: Settings, stop: threading.Event) -> int:
    announced = False
    began = time.monotonic()
    with Streamline(url) as service:
        while not stop.wait(0.2):
            for child in children:
                assert child.process is not None
                if child.process.poll() is not None and time.monotonic() - child.started_at > _RESTART_PAUSE_SECONDS:
                    if not announced:
                        _say(f"The {child.name} does not start; its log: {child.log_file}")
                        return exits.FAILED_OR_GATE_MISSED
                    _say(f"{child.name} ended with status {child.process.returncode}; starting it again.")
                    child.start()
            if not announced and service.ready():
                announced = True
                _say(f"Streamline is up at {url}  (data and logs: {settings.data_dir}; Ctrl-C stops it)")
                if url != DEFAULT_URL:
                    _say(f"Other commands find it with: export STREAMLINE_URL={url}")
            if not announced and time.monotonic() - began > _READY_SECONDS:
                _say(f"The service is not ready after {_READY_SECONDS} s; its logs: {settings.data_dir / 'logs'}")
                return exits.FAILED_OR_GATE_MISSED
    _say("Stopping; jobs under way go on at the next start.")
    return exits.PASSED


def _stop_all(children: list[_Child]) -> None:
    """SIGTERM to all (a worker gives its job back first), SIGKILL to whoever has not left in time."""
    running = [child.process for child in children if child.process is not None and child.process.poll() is None]
    for process in running:
        process.send_signal(signal.SIGTERM)
    deadline = time.monotonic() + _STOP_SECONDS
    for process in running:
        try:
            process.wait(timeout=max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _say(sentence: str) -> None:
    print(sentence, flush=True)  # noqa: T201
