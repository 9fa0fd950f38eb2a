"""What a build is left with when its waiting ends before the job does."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from app.cli import exits
from app.cli.application import run

JOB = {
    "id": "j1", "state": "running", "stage": "train", "progress": 0.37, "attempt": 1, "verdict": None, "gates": [],
    "error": None, "result": None, "spec": {"model": {"repo": "team/llama"}, "target": {"sparsity": 0.25}},
}  # fmt: skip
AN_EARLIER_RUN = '<testsuite tests="1" failures="0" errors="0"><testcase name="speedup"/></testsuite>'


class _Service(BaseHTTPRequestHandler):
    """Has one job, which runs on and on."""

    def do_GET(self) -> None:
        known = self.path.startswith("/v1/jobs/j1")
        body: dict[str, Any] = (
            {"items": [], "next_after": None} if "/events" in self.path else JOB if known else {"detail": "No."}
        )
        text = json.dumps(body).encode()
        self.send_response(200 if known else 404)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_POST = do_GET  # noqa: N815 - the library's name

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def url(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Service) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        address = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setenv("STREAMLINE_URL", address)
        yield address
        server.shutdown()
        thread.join()


def error_in(junit: Path) -> tuple[str | None, str | None]:
    suite = ElementTree.parse(junit).getroot()
    assert (suite.get("tests"), suite.get("errors")) == ("1", "1")
    error = suite.find("testcase/error")
    assert error is not None
    return error.get("type"), error.get("message")


def test_a_wait_that_times_out_leaves_results_that_say_so_in_the_place_of_an_earlier_runs(
    url: str, tmp_path: Path
) -> None:
    junit, summary = tmp_path / "deep/junit.xml", tmp_path / "summary.md"
    junit.parent.mkdir()
    junit.write_text(AN_EARLIER_RUN)
    assert run(["wait", "j1", "--timeout", "0", "--junit", str(junit), "--summary", str(summary)]) == exits.TIMED_OUT
    assert error_in(junit) == ("timed_out", "Not finished after 0 s; the job goes on.")
    told = summary.read_text()
    assert told.startswith("## team/llama: **not finished**\n\nNot finished after 0 s; the job goes on.\n")
    assert "running, stage train, 37% done" in told
    assert "`streamline wait j1`" in told
    assert f"[Job j1]({url}/jobs/j1)" in told


@pytest.mark.parametrize("arguments", [["wait", "absent"], ["submit", "--model", "a/b", "--sparsity", "0.2", "--wait"]])
@pytest.mark.usefixtures("url")
def test_a_refusal_leaves_no_results_of_an_earlier_run(arguments: list[str], tmp_path: Path) -> None:
    junit = tmp_path / "junit.xml"
    junit.write_text(AN_EARLIER_RUN)
    assert run([*arguments, "--junit", str(junit)]) == exits.BAD_USAGE
    assert error_in(junit)[0] == "unknown"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_wait_that_the_build_server_ends_says_that_the_job_goes_on(
    number: signal.Signals, url: str, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "app.cli", "wait", "j1", "--junit", "junit.xml"]
    with subprocess.Popen(
        command, cwd=tmp_path, stderr=subprocess.PIPE, text=True, env=os.environ | {"STREAMLINE_URL": url}
    ) as waiting:
        assert waiting.stderr is not None
        assert "train" in waiting.stderr.readline()
        waiting.send_signal(number)
        said = waiting.stderr.read()
    assert waiting.returncode == exits.INTERRUPTED
    assert "the job goes on. Attach again with: streamline wait j1" in said
    assert error_in(tmp_path / "junit.xml")[0] == "interrupted"
