"""A proxy in front of a real hub that counts what is asked, and has bad days where a test asks for them."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx

_PIECE = 64 << 10


@dataclass
class Asked:
    """One request as the proxy saw it."""

    method: str
    path: str
    range: str | None
    authorization: str | None


@dataclass
class Proxy:
    """A running proxy. Faults are set by the end of a path and last until they are taken away, but for cuts."""

    target: str
    url: str = ""
    asked: list[Asked] = field(default_factory=list)
    down: bool = False
    cuts: dict[str, int] = field(default_factory=dict)
    """End of a path -> bytes after which the next GET of it loses its connection."""
    damaged: set[str] = field(default_factory=set)
    """Ends of paths whose bytes come changed."""
    slow: dict[str, float] = field(default_factory=dict)
    """End of a path -> seconds before each piece."""
    held: dict[str, threading.Event] = field(default_factory=dict)
    """End of a path -> what its last piece waits for."""
    sends_away: str | None = None
    """Address of another server that files are to be had from, as the Hub's CDN is."""

    def of(self, end: str, method: str = "GET") -> list[Asked]:
        return [asked for asked in self.asked if asked.path.endswith(end) and asked.method == method]


@contextmanager
def faulty_proxy(target: str) -> Iterator[Proxy]:
    """A proxy in front of `target`."""
    proxy = Proxy(target)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            proxy.asked.append(Asked(self.command, path, self.headers["range"], self.headers["authorization"]))
            if proxy.down:
                self.close_connection = True
                return
            if proxy.sends_away and "/resolve/" in path:
                self.send_response(302)
                self.send_header("Location", proxy.sends_away + self.path)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self._forward(path)

        do_HEAD = do_GET  # noqa: N815 - the library's name

        def _forward(self, path: str) -> None:
            kept = {
                name: self.headers[name]
                for name in ("range", "authorization", "x-streamline-via")
                if self.headers[name]
            }
            with httpx.stream(self.command, proxy.target + self.path, headers=kept, trust_env=False) as answer:
                self.send_response(answer.status_code)
                for name, value in answer.headers.items():
                    if name not in {"server", "date", "transfer-encoding", "connection"}:
                        self.send_header(name, value)
                self.end_headers()
                left = next((proxy.cuts.pop(end) for end in list(proxy.cuts) if path.endswith(end)), None)
                pause = next((seconds for end, seconds in proxy.slow.items() if path.endswith(end)), 0.0)
                go_on = next((event for end, event in proxy.held.items() if path.endswith(end)), None)
                spoil = any(path.endswith(end) for end in proxy.damaged)
                for piece in answer.iter_raw(_PIECE):
                    time.sleep(pause)
                    if go_on and answer.num_bytes_downloaded == int(answer.headers["content-length"]):
                        go_on.wait()
                    sent = piece if left is None else piece[:left]
                    self.wfile.write(bytes(byte ^ 1 for byte in sent) if spoil else sent)
                    if left is not None and (left := left - len(sent)) <= 0:
                        self.close_connection = True
                        return

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    proxy.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield proxy
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
