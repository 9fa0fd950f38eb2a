"""A download whose connection breaks off, stalls, or never comes about."""

import hashlib
import io
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
from rich.console import Console

from app.cli import exits, transfer, transfer_display
from app.cli.application import run

BIG = bytes(range(256)) * 4096
SHA256 = hashlib.sha256(BIG).hexdigest()
SIBLINGS = [
    {"rfilename": "config.json", "size": 2},
    {"rfilename": "model.safetensors", "size": len(BIG), "lfs": {"sha256": SHA256}},
]
PART = f"model.safetensors.{SHA256[:12]}.part"


class _Hub(BaseHTTPRequestHandler):
    """Has one model, and gives of its large file as much at a time as a test wants."""

    status: int | None
    """What is answered about the large file once, in place of it."""

    gives: list[int]
    """Bytes of each answer, the last one for all that follow."""
    stalls: threading.Event | None
    """What a connection that has given its part waits for; without it, it is closed."""

    def do_GET(self) -> None:
        if "/revision/" in self.path:
            self._answer(json.dumps({"sha": "c" * 40, "siblings": SIBLINGS}).encode())
        elif self.path.endswith("config.json"):
            self._answer(b"{}")
        else:
            self._give()

    def _give(self) -> None:
        status, _Hub.status = self.status, None
        if status is None:
            self._break_off()
        else:
            self._answer(b"", status)

    def _answer(self, body: bytes, status: int = 200, length: int | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)

    def _break_off(self) -> None:
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").removesuffix("-"))
        wanted = self.gives.pop(0) if len(self.gives) > 1 else self.gives[0]
        self._answer(BIG[start : start + wanted], 206 if start else 200, len(BIG) - start)
        if self.stalls is not None and start + wanted < len(BIG):
            self.wfile.flush()
            self.stalls.wait(60)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[_Hub]]:
    monkeypatch.setattr(transfer, "_FIRST_PAUSE_SECONDS", 0.0)
    _Hub.stalls = _Hub.status = None
    with ThreadingHTTPServer(("127.0.0.1", 0), _Hub) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        monkeypatch.setenv("STREAMLINE_URL", f"http://127.0.0.1:{server.server_port}")
        yield _Hub
        server.shutdown()
        thread.join()


def test_a_transfer_that_breaks_off_goes_on_by_itself_as_long_as_it_comes_further(
    hub: type[_Hub], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.gives = [len(BIG) // 8]
    assert run(["download", "team/big", str(tmp_path)]) == exits.PASSED
    assert (tmp_path / "model.safetensors").read_bytes() == BIG
    said = capsys.readouterr().err
    assert said == "The transfer of model.safetensors broke off; trying on.\n" * 7


def test_one_that_comes_no_further_says_what_is_kept_and_the_same_command_goes_on(
    hub: type[_Hub], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.gives = [300_000, 0]
    assert run(["download", "team/big", str(tmp_path)]) == exits.BAD_USAGE
    said = capsys.readouterr().err.splitlines()[-1]
    assert "broke off" in said
    assert "the first 300,000 of 1,048,576 bytes of this one, are kept: the same command goes on from there." in said
    assert "No Streamline service" not in said
    assert (tmp_path / PART).read_bytes() == BIG[:300_000]
    assert (tmp_path / "config.json").read_bytes() == b"{}"
    hub.gives = [len(BIG) - 300_000]
    assert run(["download", "team/big", str(tmp_path)]) == exits.PASSED
    assert (tmp_path / "model.safetensors").read_bytes() == BIG


def test_one_that_stalls_is_tried_again(hub: type[_Hub], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "_TIMEOUT", httpx.Timeout(0.5))
    hub.gives, hub.stalls = [300_000, len(BIG)], threading.Event()
    try:
        assert run(["download", "team/big", str(tmp_path)]) == exits.PASSED
    finally:
        hub.stalls.set()
    assert (tmp_path / "model.safetensors").read_bytes() == BIG


@pytest.mark.parametrize(("status", "code"), [(503, exits.PASSED), (404, exits.BAD_USAGE)])
def test_a_hub_that_is_busy_is_asked_again_and_one_that_has_not_got_it_is_not(
    hub: type[_Hub], tmp_path: Path, status: int, code: int
) -> None:
    hub.gives, hub.status = [len(BIG)], status
    assert run(["download", "team/big", str(tmp_path)]) == code


@pytest.mark.parametrize("path", ["", ".", "..", "../model.bin", "a/../.."])
def test_what_a_hub_calls_outside_of_the_directory_is_not_written(
    hub: type[_Hub], path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.gives = [len(BIG)]
    monkeypatch.setattr("tests.unit.app.cli.test_transfer.SIBLINGS", [{"rfilename": path, "size": 2}])
    assert run(["download", "team/big", str(tmp_path / "model")]) == exits.BAD_USAGE
    assert "outside the directory" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_hub_that_is_not_there_is_told_as_such(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("STREAMLINE_URL", "http://127.0.0.1:9")
    assert run(["download", "team/big", str(tmp_path)]) == exits.BAD_USAGE
    assert "No Streamline service answers at http://127.0.0.1:9." in capsys.readouterr().err


@pytest.mark.parametrize("repo", ["a/b/c", "https://hub/team/name", "", "-x/y"])
def test_what_names_no_repository_is_refused_before_anything_is_asked(
    repo: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("STREAMLINE_URL", "http://127.0.0.1:9")
    assert run(["download", "--", repo, str(tmp_path)]) == exits.BAD_USAGE
    assert "cannot name a repository" in capsys.readouterr().err


def test_a_terminal_shows_each_file_and_a_log_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = {}
    monkeypatch.setattr(transfer_display, "_LINE_EVERY_SECONDS", 0.0)
    for terminal in (True, False):
        console = Console(file=io.StringIO(), force_terminal=terminal, width=120)
        with transfer_display.transfer_display(console) as display:
            for name in ("first.bin", "second.bin"):
                display.begin(name, 4_000_000, 1_000_000)
                display.at(2_000_000)
                if isinstance(display, transfer_display.Bar):
                    display._progress.refresh()
        shown[terminal] = console.file.getvalue()  # type: ignore[attr-defined]
    assert "first.bin" in shown[True]
    assert "2.0/4.0 MB" in shown[True]
    assert shown[False] == "first.bin  2.0 MB of 4.0 MB\nsecond.bin  2.0 MB of 4.0 MB\n"
