"""Both clients against a real server that is busy, hangs up and restarts."""

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.client import AsyncStreamline, ProblemError, Streamline, UnreachableError, WaitTimeoutError
from app.client.retries import Retries

HANG_UP = None
Answer = tuple[int, dict[str, str], bytes] | None
OK: Answer = (200, {}, json.dumps({"id": "j", "state": "queued"}).encode())


class Script:
    """What the server answers, one after the other, and what it was sent."""

    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers)
        self.requests: list[tuple[str, str, dict[str, str]]] = []


@contextmanager
def served(script: Script, reserved: socket.socket | None = None) -> Iterator[str]:
    """The URL of a server that answers by the script; `reserved` has its port already."""

    class Handler(BaseHTTPRequestHandler):
        def respond(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            script.requests.append((self.command, self.path, dict(self.headers.items())))
            answer = script.answers.pop(0)
            if answer is None:
                self.close_connection = True
                self.connection.shutdown(2)
                return
            status, headers, body = answer
            self.send_response(status)
            for name, value in ({"Content-Length": str(len(body))} | headers).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = respond  # noqa: N815 - names of the library

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler, bind_and_activate=False) as server:
        if reserved is None:
            server.server_bind()
        else:
            server.socket.close()
            server.socket, server.server_port = reserved, reserved.getsockname()[1]
        server.server_activate()
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@contextmanager
def reserved_port() -> Iterator[tuple[socket.socket, str]]:
    """A port that nobody else gets and where nobody listens, and its URL."""
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        yield reserved, f"http://127.0.0.1:{reserved.getsockname()[1]}"


Use = Callable[..., Any]


def plainly(
    url: str, method: str, *arguments: Any, api_key: str | None = None, expected: bool = False, **more: Any
) -> Any:
    with Streamline(url, api_key, expected=expected) as service:
        answer = getattr(service, method)(*arguments, **more)
        return list(answer) if method == "stream" else answer


def awaited(
    url: str, method: str, *arguments: Any, api_key: str | None = None, expected: bool = False, **more: Any
) -> Any:
    async def use() -> Any:
        async with AsyncStreamline(url, api_key, expected=expected) as service:
            if method == "stream":
                return [event async for event in service.stream(*arguments)]
            return await getattr(service, method)(*arguments, **more)

    return asyncio.run(use())


both = pytest.mark.parametrize("use", [plainly, awaited])


@both
def test_a_busy_service_is_asked_again_after_as_long_as_it_wants(use: Use) -> None:
    script = Script((503, {"Retry-After": "1"}, b""), (429, {"Retry-After": formatdate(usegmt=True)}, b""), OK)
    with served(script) as url:
        began = time.monotonic()
        assert use(url, "job", "j")["id"] == "j"
    assert 1.2 <= time.monotonic() - began < 30
    assert len(script.requests) == 3


@both
def test_who_waits_for_a_job_is_not_sent_away_by_a_failure_in_between(use: Use) -> None:
    done = (200, {"ETag": '"2"'}, json.dumps({"id": "j", "state": "succeeded"}).encode())
    script = Script(OK, (500, {}, b"Internal Server Error"), done)
    with served(script) as url:
        assert use(url, "wait", "j")["state"] == "succeeded"
    assert len(script.requests) == 3


@both
def test_what_needs_a_person_first_is_told_at_once_but_to_who_waits(use: Use) -> None:
    body = json.dumps({"code": "database_behind", "detail": "Run `streamline migrate`."}).encode()
    behind = (503, {"Content-Type": "application/problem+json"}, body)
    script = Script(behind)
    with served(script) as url, pytest.raises(ProblemError, match="streamline migrate"):
        use(url, "job", "j")
    assert len(script.requests) == 1
    script = Script(OK, behind, (200, {"ETag": '"2"'}, json.dumps({"id": "j", "state": "succeeded"}).encode()))
    with served(script) as url:
        assert use(url, "wait", "j")["state"] == "succeeded"


@both
def test_the_address_that_is_shown_has_no_password(use: Use) -> None:
    with reserved_port() as (_, url), pytest.raises(UnreachableError) as told:
        use(url.replace("://", "://bob:secret@"), "job", "j")
    assert url in str(told.value)
    assert "secret" not in str(told.value)


@both
def test_a_submission_whose_answer_is_lost_is_sent_again_with_the_same_key(use: Use) -> None:
    still_at_work = json.dumps({"code": "idempotency_key_in_flight"}).encode()
    script = Script(HANG_UP, (409, {"Retry-After": "1"}, still_at_work), (503, {}, b""), OK)
    with served(script) as url:
        use(url, "submit", {})
    keys = {headers["Idempotency-Key"] for _, _, headers in script.requests}
    assert len(script.requests) == 4
    assert len(keys) == 1


@both
def test_what_must_not_be_done_twice_is_sent_once(use: Use) -> None:
    script = Script((503, {"Retry-After": "1"}, b"{}"))
    with served(script) as url, pytest.raises(ProblemError):
        use(url, "import_model", Path("/models/llama"), "team/llama")
    assert len(script.requests) == 1


@both
def test_a_wait_that_is_longer_than_the_patience_is_not_begun(use: Use) -> None:
    script = Script((429, {"Retry-After": "3600"}, json.dumps({"code": "quota_exceeded", "detail": "Wait."}).encode()))
    with served(script) as url, pytest.raises(ProblemError, match=r"Wait\.") as refusal:
        use(url, "job", "j")
    assert refusal.value.code == "quota_exceeded"


@both
def test_where_nobody_has_ever_answered_the_address_is_named_at_once(use: Use) -> None:
    began = time.monotonic()
    with reserved_port() as (_, url), pytest.raises(UnreachableError, match=url):
        use(url, "job", "j")
    assert time.monotonic() - began < 30


@both
def test_a_service_that_is_expected_is_waited_for_while_it_starts(use: Use) -> None:
    script = Script(OK)
    with reserved_port() as (reserved, url):

        def start_late() -> None:
            time.sleep(1)
            with served(script, reserved):
                while script.answers:
                    time.sleep(0.05)

        starting = threading.Thread(target=start_late)
        starting.start()
        assert use(url, "submit", {}, expected=True)["id"] == "j"
        starting.join()


@both
def test_a_stream_that_breaks_off_goes_on_behind_the_last_event(use: Use) -> None:
    def events(*ids: int) -> bytes:
        return b"".join(f'id: {one}\nevent: state\ndata: {{"n": {one}}}\n\n'.encode() for one in ids)

    stream = {"Content-Type": "text/event-stream"}
    script = Script((200, stream | {"Content-Length": "1000"}, events(1, 2)), (200, stream, events(3)), (204, {}, b""))
    with served(script) as url:
        assert [event["data"]["n"] for event in use(url, "stream", "j")] == [1, 2, 3]
    assert [headers["Last-Event-ID"] for _, _, headers in script.requests] == ["0", "2", "3"]


@both
def test_a_stream_that_is_none_is_refused_instead_of_being_asked_for_for_ever(use: Use) -> None:
    script = Script((200, {"Content-Type": "text/html"}, b"<html>"))
    with served(script) as url, pytest.raises(UnreachableError, match="text/html"):
        use(url, "stream", "j")


@both
def test_a_key_out_of_a_file_loses_its_newline_and_one_that_no_header_holds_is_refused(use: Use) -> None:
    script = Script(OK)
    with served(script) as url:
        use(url, "job", "j", api_key="hf_abc\n")
    assert script.requests[0][2]["Authorization"] == "Bearer hf_abc"
    with pytest.raises(UnreachableError, match="no key has"):
        use("http://127.0.0.1:1", "job", "j", api_key="hf_\u00e4")


@both
def test_an_address_that_is_none_is_named(use: Use) -> None:
    with pytest.raises(UnreachableError, match="STREAMLINE_URL"):
        use("http://[::1", "job", "j")
    with pytest.raises(UnreachableError, match=r"'ftp://'\. Look at"):
        use("ftp://models.test", "job", "j")


@both
def test_an_address_is_that_of_the_service_also_with_the_path_that_stands_in_examples(use: Use) -> None:
    script = Script(OK)
    with served(script) as url:
        use(f"{url}/v1/", "job", "j")
    assert script.requests[0][1] == "/v1/jobs/j"


@both
def test_https_to_a_service_without_it_is_guessed(use: Use) -> None:
    with served(Script()) as url, pytest.raises(UnreachableError, match=r"Is it http:// instead of https://\?"):
        use(url.replace("http:", "https:"), "job", "j")


@both
def test_a_wait_ends_in_time_also_where_the_service_is_gone(use: Use) -> None:
    began = time.monotonic()
    with reserved_port() as (_, url), pytest.raises(WaitTimeoutError):
        use(url, "wait", "j", timeout=1)
    assert time.monotonic() - began < 30


@both
def test_a_refusal_by_a_service_of_another_version_says_so(use: Use) -> None:
    body = json.dumps({"code": "unknown_field", "detail": "There is no field x."}).encode()
    said = r"There is no field x\. The service is version 9\.9 and this client"
    with served(Script((422, {"Streamline-Version": "9.9"}, body))) as url, pytest.raises(ProblemError, match=said):
        use(url, "plan", {})


def test_pauses_double_and_end_with_the_patience() -> None:
    retries, dropped = Retries(2.0, reachable=True), httpx.ReadError("")
    assert [retries.pause(dropped) for _ in range(3)] == [0.2, 0.4, 0.8]
    assert [retries.pause(dropped) for _ in range(3)][-1] is None
