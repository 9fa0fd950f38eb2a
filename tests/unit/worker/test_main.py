"""The worker as a process: what it says when it cannot work as it was told to."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

from alembic import command

from app.db.migrate import alembic_config
from tests.conftest import REPOSITORY


def worker(place: Path, **variables: str) -> "subprocess.Popen[str]":
    kept = {name: value for name, value in os.environ.items() if not name.startswith("STREAMLINE_")}
    return subprocess.Popen(
        [sys.executable, "-m", "worker"],
        env=kept | {"PYTHONPATH": str(REPOSITORY), "STREAMLINE_DATA_DIR": str(place)} | variables,
        stderr=subprocess.PIPE,
        text=True,
        cwd=place,
    )


def test_a_port_for_metrics_that_is_taken_is_a_wrong_setting(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        refused = worker(tmp_path, STREAMLINE_WORKER_METRICS=f"127.0.0.1:{taken.getsockname()[1]}")
        _, said = refused.communicate(timeout=300)
    assert refused.returncode == 64, "which systemd does not try again"
    assert said.startswith("STREAMLINE_WORKER_METRICS: nobody can listen on 127.0.0.1:")
    assert said.count("\n") == 1


def test_every_line_of_the_log_is_json_and_tells_no_password_also_what_celery_says(tmp_path: Path) -> None:
    lines = []
    with worker(tmp_path, STREAMLINE_BROKER_URL="redis://:hush@127.0.0.1:1/0") as running:
        assert running.stderr is not None
        hang = threading.Timer(60, running.kill)
        hang.start()
        try:
            for line in running.stderr:
                lines.append(json.loads(line))
                if "Cannot connect" in lines[-1]["event"]:
                    break
        finally:
            hang.cancel()
            running.kill()
    assert lines[-1]["logger"].startswith("celery.")
    assert lines[-1]["level"] == "error"
    assert "hush" not in json.dumps(lines)


def test_a_database_that_is_behind_is_told_once_at_the_start_with_the_command_that_mends_it(tmp_path: Path) -> None:
    command.upgrade(alembic_config(f"sqlite:///{tmp_path / 'streamline.db'}"), "0005")
    lines = []
    with worker(tmp_path) as running:
        assert running.stderr is not None
        hang = threading.Timer(60, running.kill)
        hang.start()
        try:
            for line in running.stderr:
                lines.append(json.loads(line))
                if lines[-1]["event"] == "presence_not_noted":
                    break
            time.sleep(1)
            assert running.poll() is None, "it waits for the migration"
        finally:
            hang.cancel()
            running.kill()
    told = [line for line in lines if line["event"] == "database_behind"]
    assert [line["level"] for line in told] == ["error"]
    assert "`streamline migrate`" in told[0]["detail"]
