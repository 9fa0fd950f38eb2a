"""What a build is told and left with, also when its waiting ends before the job does."""

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


EVENTS = [
    {"id": 1, "time": "now", "event": "stage_started", "data": {"time": 1.0, "stage": "train"}},
    {"id": 2, "time": "now", "event": "progress", "data": {"time": 2.0, "done": 1, "total": 9, "unit": "steps"}},
    {
        "id": 3,
        "time": "now",
        "event": "stage_finished",
        "data": {"stage": "train", "seconds": 3, "outputs": {"a": "b"}},
    },
]
REPORT = "<html>"


class _Service(BaseHTTPRequestHandler):
    """Has one job, which runs on and on, and takes no other.

    Who submits again is told that it has failed, and may not let it go on.
    """

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        again = self.path == "/v1/jobs" and self.headers.get("Idempotency-Key") == "again"
        self._answer(JOB | {"state": "failed"} if again else None)

    def do_GET(self) -> None:
        answers: dict[str, Any] = {
            "/v1/jobs/j1": JOB,
            "/v1/jobs/j1/events": {"items": EVENTS, "next_after": None},
            "/v1/jobs/j1/report": REPORT,
        }
        self._answer(answers.get(self.path.partition("?")[0]))

    def _answer(self, known: Any) -> None:
        text = json.dumps(known or {"code": "invalid_credentials", "detail": "No."}).encode()
        self.send_response(200 if known else 401)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

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


SUBMIT = ["submit", "--model", "a/b", "--sparsity", "0.2", "--wait"]


@pytest.mark.parametrize(
    ("arguments", "address", "kind", "code"),
    [
        (["wait", "absent"], "", "invalid_credentials", exits.NOT_ALLOWED),
        (SUBMIT, "", "invalid_credentials", exits.NOT_ALLOWED),
        ([*SUBMIT, "--gate", "speed"], "", "bad_usage", exits.BAD_USAGE),
        (["submit", "absent.toml", "--wait"], "", "bad_usage", exits.BAD_USAGE),
        (["wait", "j1"], "http://127.0.0.1:port", "unreachable", exits.BAD_USAGE),
        (SUBMIT, "http://127.0.0.1:9", "unreachable", exits.BAD_USAGE),
    ],
)
def test_what_never_got_a_job_leaves_the_reason_in_the_place_of_an_earlier_runs_results(
    arguments: list[str],
    address: str,
    kind: str,
    code: int,
    url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("STREAMLINE_URL", address or url)
    junit, summary = tmp_path / "junit.xml", tmp_path / "summary.md"
    junit.write_text(AN_EARLIER_RUN)
    assert run([*arguments, "--junit", str(junit), "--summary", str(summary)]) == code
    sentence = capsys.readouterr().err.removeprefix("streamline: ").removesuffix("\n")
    assert error_in(junit) == (kind, sentence)
    heading = "not submitted" if arguments[0] == "submit" else "not waited for"
    assert summary.read_text() == f"## {heading}\n\n{sentence}\n"


@pytest.mark.usefixtures("url")
def test_a_job_that_may_not_go_on_is_named_by_what_the_step_leaves(tmp_path: Path) -> None:
    junit, summary = tmp_path / "junit.xml", tmp_path / "summary.md"
    files = ["--junit", str(junit), "--summary", str(summary)]
    assert run([*SUBMIT, "--idempotency-key", "again", *files]) == exits.NOT_ALLOWED
    assert error_in(junit)[0] == "invalid_credentials"
    assert summary.read_text().startswith("## job j1 does not go on\n\nNo.")


def test_no_password_of_the_address_is_in_what_a_step_leaves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMLINE_API_KEY", "ké")
    for address in ("https://ci:hush@host", "https://ci:hush@host:port"):
        monkeypatch.setenv("STREAMLINE_URL", address)
        assert run([*SUBMIT, "--summary", str(tmp_path / "summary.md")]) == exits.BAD_USAGE
    told = (tmp_path / "summary.md").read_text()
    assert told.count("https://host") == 2
    assert "hush" not in told


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_wait_that_the_build_server_ends_says_that_the_job_goes_on(
    number: signal.Signals, url: str, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "app.cli", "wait", "j1", "--junit", "junit.xml"]
    with subprocess.Popen(
        command,
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"STREAMLINE_URL": url},
        # A shell that runs the tests in the background has SIGINT ignored, by what it starts too.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # noqa: PLW1509 - no threads' locks
    ) as waiting:
        try:
            assert waiting.stderr is not None
            assert "train" in waiting.stderr.readline()
            waiting.send_signal(number)
            _, said = waiting.communicate(timeout=300)
        finally:
            waiting.kill()
    assert waiting.returncode == exits.INTERRUPTED
    assert "the job goes on. Attach again with: streamline wait j1" in said
    assert error_in(tmp_path / "junit.xml")[0] == "interrupted"


@pytest.mark.parametrize(("key", "what_to_do"), [("", "Set"), ("hf_mistyped", "Look at")])
@pytest.mark.usefixtures("url")
def test_who_is_not_let_in_is_told_which_variable_it_is_about(
    key: str, what_to_do: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("STREAMLINE_API_KEY", key)
    assert run(["status", "absent"]) == exits.NOT_ALLOWED
    assert capsys.readouterr().err == f"streamline: No. {what_to_do} STREAMLINE_API_KEY.\n"


@pytest.mark.usefixtures("url")
def test_events_are_those_that_people_read_unless_all_are_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    told = {}
    for option in ([], ["--all"], ["--json"]):
        assert run(["events", "j1", *option]) == exits.PASSED
        told[tuple(option)] = capsys.readouterr().out
    assert [line.split()[2] for line in told[()].splitlines()] == ["stage_started", "stage_finished"]
    assert "outputs" not in told[()]
    assert len(told["--all",].splitlines()) == 3
    assert [json.loads(line) for line in told["--json",].splitlines()] == EVENTS


@pytest.mark.usefixtures("url")
def test_a_reports_folder_is_made(tmp_path: Path) -> None:
    assert run(["report", "j1", "--out", str(tmp_path / "new/folder/report.html")]) == exits.PASSED
    assert REPORT in (tmp_path / "new/folder/report.html").read_text()
