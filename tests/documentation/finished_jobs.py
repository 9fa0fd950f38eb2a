"""A proxy in front of a service at work, so that hours of a reader pass in seconds.

It hands everything on. A submission is checked, taken and queued by the service like any other; only the answer to it
is a job of before that has run to its end, which is what the reader would have an hour later.
"""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx

_HOPS = frozenset({"connection", "keep-alive", "transfer-encoding", "server", "date"})


@dataclass
class FinishedJobs:
    """The running proxy."""

    target: str
    job: dict[str, Any]
    """What every submission is answered with."""
    url: str = ""
    taken: list[str] = field(default_factory=list)
    """Ids of the jobs that were really made, in order."""


@contextmanager
def finished_jobs(target: str, job: dict[str, Any]) -> Iterator[FinishedJobs]:
    """Stand in front of `target`."""
    proxy = FinishedJobs(target, job)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.close_connection = True
            kept = [(name, value) for name, value in self.headers.items() if name.lower() not in _HOPS]
            with (
                httpx.Client(trust_env=False, timeout=60) as client,
                client.stream(self.command, proxy.target + self.path, headers=kept, content=self._body()) as answer,
            ):
                submitted = self.command == "POST" and self.path == "/v1/jobs" and answer.is_success
                content = self._end_of(answer) if submitted else None
                self.send_response(answer.status_code)
                for name, value in answer.headers.multi_items():
                    if name not in _HOPS and not (submitted and name in {"content-length", "location", "etag"}):
                        self.send_header(name, value)
                if content is not None:
                    self.send_header("Content-Length", str(len(content)))
                self.send_header("Connection", "close")
                self.end_headers()
                for piece in [content] if content is not None else answer.iter_raw():
                    self.wfile.write(piece)

        do_HEAD = do_POST = do_PUT = do_DELETE = do_GET  # noqa: N815 - the library's names

        def _body(self) -> bytes:
            if self.headers.get("transfer-encoding", "").lower() != "chunked":
                return self.rfile.read(int(self.headers.get("content-length") or 0))
            pieces = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                pieces.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(pieces)

        def _end_of(self, answer: httpx.Response) -> bytes:
            answer.read()
            proxy.taken.append(answer.json()["id"])
            return json.dumps(proxy.job).encode()

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
