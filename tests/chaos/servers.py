"""A Postgres and a Redis of a test's own, on free ports: to be killed and emptied as no shared one may be."""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.ports import unused_port
from tests.service_process import wait_until


class Server:
    """A server process over a directory: what it keeps there outlives its death."""

    def __init__(self, command: list[str], port: int, log: Path, user: str | None = None) -> None:
        self.port = port
        self._command = command
        self._log = log
        self._user = user
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log, user=self._user, cwd="/")
        wait_until(self._answers, seconds=120, what=f"{self._command[0]} answers")

    def kill(self, number: int = signal.SIGKILL) -> None:
        assert self._process is not None
        self._process.send_signal(number)
        self._process.wait(120)

    def restart(self, number: int = signal.SIGKILL) -> None:
        self.kill(number)
        self.start()

    def _answers(self) -> bool:
        import socket

        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
        except OSError:
            return False
        return True


def _postgres_programs() -> Path | None:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    return found[-1] if found else None


@contextmanager
def own_postgres() -> Iterator[Server]:
    """A running Postgres with the superuser `postgres` and no password; skips the test where it is not installed."""
    if (programs := _postgres_programs()) is None:
        pytest.skip("PostgreSQL is not installed")
    user = "postgres" if os.geteuid() == 0 else None  # it refuses to run as root
    directory = Path(tempfile.mkdtemp(prefix="streamline-chaos-"))
    try:
        if user:
            os.chown(directory, pwd.getpwnam(user).pw_uid, -1)
        data = directory / "data"
        make: list[str | Path] = [
            programs / "initdb",
            "-D",
            data,
            "-U",
            "postgres",
            "--auth=trust",
            "--no-sync",
            "-E",
            "UTF8",
        ]
        subprocess.run(make, check=True, user=user, cwd="/", stdout=subprocess.DEVNULL)
        port = unused_port()
        command = [
            f"{programs}/postgres",
            "-D",
            f"{data}",
            "-p",
            f"{port}",
            "-k",
            "",
            "-c",
            "listen_addresses=127.0.0.1",
        ]
        # The machine does not die in these tests, so that what the kernel was given is kept.
        server = Server([*command, "-c", "fsync=off"], port, directory / "log", user)
        server.start()
        try:
            yield server
        finally:
            server.kill(signal.SIGQUIT)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@contextmanager
def own_redis() -> Iterator[Server]:
    """A running Redis that keeps nothing on disk: a restart loses every message."""
    if (program := shutil.which("redis-server")) is None:
        pytest.skip("Redis is not installed")
    directory = Path(tempfile.mkdtemp(prefix="streamline-chaos-"))
    port = unused_port()
    options = ["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", f"{directory}"]
    server = Server([program, "--port", f"{port}", *options], port, directory / "log")
    server.start()
    try:
        yield server
    finally:
        server.kill()
        shutil.rmtree(directory, ignore_errors=True)
