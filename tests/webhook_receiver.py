"""A receiver of webhooks: a real server that checks signatures with the reference library of the specification."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from standardwebhooks import Webhook, WebhookVerificationError


@dataclass
class Receiver:
    """What the server does, and what it was sent."""

    secrets: list[str] = field(default_factory=list)
    """Of the endpoints that it is; a message that none of them has signed is answered by 401."""
    status: int = 204
    headers: dict[str, str] = field(default_factory=dict)
    pause: threading.Event | None = None
    """Where there is one, answers wait until it is set."""
    port: int = 0
    taken: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    """Id and body of each message that was answered by 2xx."""
    refused: list[str] = field(default_factory=list)
    """Ids of messages that no secret of these has signed."""
    requests: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    """Path and headers of everything that came."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    def verified(self, body: bytes, headers: dict[str, str]) -> bool:
        for secret in self.secrets:
            try:
                Webhook(secret).verify(body, headers)
            except WebhookVerificationError:
                continue
            return True
        return False

    @contextmanager
    def listening(self) -> Iterator["Receiver"]:
        """Listen, the second time on the same port as the first."""
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                receiver.requests.append((self.path, headers))
                if receiver.pause is not None:
                    receiver.pause.wait(30)
                status = receiver.status
                if not receiver.verified(body, headers):
                    receiver.refused.append(headers.get("webhook-id", ""))
                    status = 401
                if 200 <= status < 300:
                    receiver.taken.append((headers["webhook-id"], json.loads(body)))
                self.send_response(status)
                for name, value in receiver.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        with ThreadingHTTPServer(("127.0.0.1", self.port), Handler) as server:
            self.port = server.server_port
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
            thread.start()
            try:
                yield self
            finally:
                server.shutdown()
                thread.join()
