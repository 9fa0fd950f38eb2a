"""What a hub may say that no hub should: a real server that says it."""

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from app.hub.errors import UpstreamRefused, UpstreamUnavailable
from app.hub.upstream.remote import MAX_FILES, RemoteHub

Answer = tuple[int, dict[str, str], Any]
Serve = Callable[[Callable[[str], Answer]], str]
COMMIT = "c" * 40
ADVICE = "http://169.254.169.254/latest/meta-data/"


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Answer every GET by a function of its target (a whole address where the server is used as a proxy)."""
    servers = []

    def start(answer: Callable[[str], Answer]) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                status, headers, body = answer(self.path)
                content = json.dumps(body).encode()
                self.send_response(status)
                for name, value in (headers | {"Content-Length": str(len(content))}).items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, format: str, *args: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def page(entries: list[dict[str, Any]]) -> Callable[[str], Answer]:
    """The same entries on every page, each with another one behind it."""
    count = iter(range(10**9))

    def answer(_target: str) -> Answer:
        return 200, {"Link": f'<http://hub.example/next?cursor={next(count)}>; rel="next"'}, entries

    return answer


@pytest.mark.parametrize(
    ("entries", "error"),
    [
        ([], UpstreamUnavailable),
        ([{"type": "directory", "path": str(number)} for number in range(MAX_FILES)], UpstreamRefused),
    ],
)
def test_a_list_without_an_end_is_given_up(serve: Serve, entries: list[dict[str, Any]], error: type[Exception]) -> None:
    hub = RemoteHub(serve(page(entries)), None)
    with pytest.raises(error):
        hub.files("team/model", COMMIT)
    hub.close()


@pytest.mark.parametrize("at", ["http://127.0.0.1:{port}/", "http://localhost:{port}/", "http://[::1]:{port}/", ADVICE])
def test_a_hub_elsewhere_sends_us_to_no_address_of_this_machine(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    asked: list[str] = []

    def answer(target: str) -> Answer:
        asked.append(target)
        return 200, {}, {"sha": COMMIT}

    inside = serve(answer)
    target = at.format(port=inside.rpartition(":")[2])
    monkeypatch.setenv("HTTP_PROXY", serve(lambda _target: (302, {"Location": target}, {})))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost,::1")
    hub = RemoteHub("http://hub.example", None)
    with pytest.raises(UpstreamUnavailable, match="this machine's own"):
        hub.revision("team/model", "main")
    with pytest.raises(UpstreamUnavailable, match="this machine's own"), hub.stream("a/b", COMMIT, "c", 0, 1):
        pass
    assert asked == []
    hub.close()
