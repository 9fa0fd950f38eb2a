"""A real S3 server (moto's) in a process of its own, and what a test may want from its bad days.

`python -m tests.s3_server` prints its port. Two things are added to moto's application: buckets whose names begin with
`full-` take nothing, as MinIO says it, and multipart uploads are listed with the time they were begun (moto has a
constant).
"""

import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any
from urllib.request import Request, urlopen

ACCESS_KEY, SECRET_KEY = "AKIATESTTESTTESTTEST", "a-secret-that-must-not-be-seen"
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": ACCESS_KEY,
    "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}
_FULL = b"<Error><Code>XMinioStorageFull</Code><Message>Storage backend has reached its limit</Message></Error>"
_REFUSED = b"<Error><Code>SignatureDoesNotMatch</Code><Message>%s</Message></Error>"
_MOTOS_TIME = "2010-11-10T20:48:33.000Z"


@contextmanager
def s3_server() -> Iterator[str]:
    """The endpoint's URL."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.s3_server"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as server:
        assert server.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(server.stdout.readline())}"
        finally:
            server.kill()


def make_bucket(endpoint: str, name: str) -> str:
    """A new bucket; its URL."""
    urlopen(Request(f"{endpoint}/{name}", method="PUT")).close()
    return f"s3://{name}"


def _application() -> Callable[..., Iterable[bytes]]:
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app

    moto = DomainDispatcherApplication(create_backend_app)
    begun: dict[str, str] = {}

    def application(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        bucket = environ["PATH_INFO"].split("/")[1]
        writes = environ["REQUEST_METHOD"] in {"PUT", "POST"} and environ["PATH_INFO"].strip("/") != bucket
        if bucket.startswith("full-") and writes:
            return _refuse(environ, start, "507 Insufficient Storage", _FULL)
        if bucket.startswith("refused-") and environ["PATH_INFO"].strip("/") != bucket:
            said = environ.get("HTTP_AUTHORIZATION", "").encode()  # real servers quote what they were sent
            return _refuse(environ, start, "403 Forbidden", _REFUSED % said)
        query = environ.get("QUERY_STRING", "")
        if not re.search(r"(^|&)uploads\b", query):
            answer: Iterable[bytes] = moto(environ, start)
            return answer
        head: list[Any] = []
        body = b"".join(moto(environ, lambda status, headers, *_: head.extend((status, headers)))).decode()
        if environ["REQUEST_METHOD"] == "POST":
            for upload in re.findall("<UploadId>(.*?)</UploadId>", body):
                begun[upload] = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
        body = re.sub("<Upload>.*?</Upload>", lambda found: _dated(found.group(), begun), body, flags=re.DOTALL)
        headers = [(name, value) for name, value in head[1] if name.lower() != "content-length"]
        start(head[0], [*headers, ("Content-Length", str(len(body.encode())))])
        return [body.encode()]

    return application


def _dated(upload: str, begun: dict[str, str]) -> str:
    name = re.search("<UploadId>(.*?)</UploadId>", upload)
    assert name is not None
    return upload.replace(_MOTOS_TIME, begun[name.group(1)])


def _refuse(environ: dict[str, Any], start: Callable[..., Any], status: str, body: bytes) -> list[bytes]:
    environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    start(status, [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
    return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]


def main() -> None:
    from werkzeug.serving import make_server

    server = make_server("127.0.0.1", 0, _application(), threaded=True)
    print(server.server_port, flush=True)
    serving = threading.Thread(target=server.serve_forever)
    serving.start()
    serving.join()


if __name__ == "__main__":
    main()
