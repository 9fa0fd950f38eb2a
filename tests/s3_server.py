"""A real S3 server (moto's) in a process of its own, and what a test may want from its bad days.

`python -m tests.s3_server` prints its port. Three things are added to moto's application: buckets whose names begin
with `full-` take nothing, as MinIO says it; others fill up and have room again as `make_full` says; and multipart
uploads are listed with the time they were begun (moto has a constant).
"""

import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs
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
_CONTROL = "/streamline-test/full/"
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


def make_full(endpoint: str, url: str, code: str | None = "XMinioStorageFull", *, from_part: int = 0) -> None:
    """Let the bucket take nothing more, with this error, or anything again (None).

    Args:
        endpoint: the server.
        url: the bucket's.
        code: what S3 servers say: MinIO has XMinioStorageFull and XMinioAdminBucketQuotaExceeded, Ceph QuotaExceeded.
        from_part: the bucket is full only from this part of a multipart upload on.
    """
    name = url.removeprefix("s3://").partition("/")[0]
    urlopen(Request(f"{endpoint}{_CONTROL}{name}?code={code or ''}&from={from_part}", method="PUT")).close()


def uploads_under_way(endpoint: str, url: str) -> int:
    """How many multipart uploads of a bucket have neither been completed nor aborted."""
    name = url.removeprefix("s3://").partition("/")[0]
    with urlopen(f"{endpoint}/{name}?uploads") as answer:
        return int(answer.read().count(b"<Upload>"))


def _application() -> Callable[..., Iterable[bytes]]:
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app

    moto = DomainDispatcherApplication(create_backend_app)
    begun: dict[str, str] = {}
    full: dict[str, tuple[str, int]] = {}

    def application(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        bucket = environ["PATH_INFO"].split("/")[1]
        if environ["PATH_INFO"].startswith(_CONTROL):
            asked = parse_qs(environ["QUERY_STRING"], keep_blank_values=True)
            name = environ["PATH_INFO"].removeprefix(_CONTROL)
            full.pop(name, None)
            if asked["code"][0]:
                full[name] = asked["code"][0], int(asked["from"][0])
            start("200 OK", [("Content-Length", "0")])
            return []
        writes = environ["REQUEST_METHOD"] in {"PUT", "POST"} and environ["PATH_INFO"].strip("/") != bucket
        if bucket.startswith("full-") and writes:
            return _refuse(environ, start, "507 Insufficient Storage", _FULL)
        if writes and bucket in full and _comes_too_late(environ, full[bucket][1]):
            code = full[bucket][0]
            status = "507 Insufficient Storage" if code.startswith("XMinio") else "403 Forbidden"
            return _refuse(environ, start, status, _FULL.replace(b"XMinioStorageFull", code.encode()))
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


def _comes_too_late(environ: dict[str, Any], from_part: int) -> bool:
    """Whether a write is one that a full bucket refuses: all, or parts from a number on."""
    if not from_part:
        return True
    asked = parse_qs(environ.get("QUERY_STRING", ""), keep_blank_values=True)
    return "partNumber" in asked and int(asked["partNumber"][0]) >= from_part


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
