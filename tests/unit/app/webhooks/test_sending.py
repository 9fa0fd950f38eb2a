"""One request to the vetted address, in bounded time and memory, with the certificate checked for the name."""

import datetime
import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from app.webhooks.addresses import Address
from app.webhooks.sending import MOST_BODY_BYTES, Answer, Sender, SendingError
from app.webhooks.targets import Target

HERE: Address = ipaddress.ip_address("127.0.0.1")
OK = b"HTTP/1.1 204 No Content\r\n\r\n"


@contextmanager
def server(serve: Callable[[socket.socket], None], tls: ssl.SSLContext | None = None) -> Iterator[int]:
    """A port on which each connection is served by `serve` and then closed."""
    listener = socket.create_server(("127.0.0.1", 0))

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                try:
                    if tls is None:
                        serve(connection)
                    else:
                        with tls.wrap_socket(connection, server_side=True) as wrapped:
                            serve(wrapped)
                except OSError:
                    pass

    thread = threading.Thread(target=accept)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


def target(port: int, *, scheme: str = "http", host: str = "receiver.example") -> Target:
    return Target(scheme, host, port, f"{host}:{port}", "/hook?x=1")


def answering(answer: bytes, seen: list[bytes] | None = None) -> Callable[[socket.socket], None]:
    def serve(connection: socket.socket) -> None:
        request = b""
        while not request.endswith(b"{}"):
            request += connection.recv(65536)
        if seen is not None:
            seen.append(request)
        connection.sendall(answer)

    return serve


def test_the_connection_goes_to_the_address_and_the_request_is_about_the_name() -> None:
    seen: list[bytes] = []
    with server(answering(OK, seen)) as port:
        answer = Sender().post(target(port), [HERE], b"{}", {"Webhook-Id": "msg_1"})
    assert answer == Answer(204)
    head = seen[0].decode().lower()
    assert head.startswith("post /hook?x=1 http/1.1\r\n")
    assert f"host: receiver.example:{port}\r\n" in head
    assert "webhook-id: msg_1\r\n" in head
    assert head.count("host:") == 1


def test_no_proxy_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    with server(answering(OK)) as port:
        assert Sender().post(target(port), [HERE], b"{}", {}).status == 204


def test_an_address_that_takes_no_connection_leads_to_the_next() -> None:
    nobody: Address = ipaddress.ip_address("127.0.0.2")
    with server(answering(OK)) as port:
        assert Sender().post(target(port), [nobody, HERE], b"{}", {}).status == 204
        with pytest.raises(SendingError, match="no connection comes about"):
            Sender().post(target(port), [nobody], b"{}", {})


def test_a_redirect_is_an_answer_and_leads_nowhere() -> None:
    seen: list[bytes] = []
    with server(answering(OK, seen)) as other:
        redirect = f"HTTP/1.1 307 Temporary Redirect\r\nLocation: http://127.0.0.1:{other}/\r\n\r\n".encode()
        with server(answering(redirect)) as port:
            assert Sender().post(target(port), [HERE], b"{}", {}).status == 307
    assert seen == []


@pytest.mark.parametrize(("said", "seconds"), [(b"120", 120), (b"soon", 0), (b"-5", 0), (b"9" * 30, 0)])
def test_what_a_receiver_asks_to_be_left_alone_for_is_read(said: bytes, seconds: int) -> None:
    busy = b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\nRetry-After: " + said + b"\r\n\r\n"
    with server(answering(busy)) as port:
        assert Sender().post(target(port), [HERE], b"{}", {}) == Answer(503, seconds)


def test_a_body_without_end_is_not_read() -> None:
    sent = 0

    def serve(connection: socket.socket) -> None:
        nonlocal sent
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            sent += connection.send(b"x" * 65536)

    with server(serve) as port:
        assert Sender().post(target(port), [HERE], b"{}", {}).status == 200
    assert sent < 64 << 20, f"{MOST_BODY_BYTES} bytes are read; what is in the sockets' buffers was sent"


def dripping(connection: socket.socket) -> None:
    connection.recv(65536)
    for byte in b"HTTP/1.1 200 OK\r\n" + b"x-header: value\r\n" * 1000:
        connection.sendall(bytes([byte]))
        time.sleep(0.05)


def silent(connection: socket.socket) -> None:
    while connection.recv(65536):
        pass


@pytest.mark.parametrize("serve", [dripping, silent])
def test_a_receiver_that_takes_its_time_does_not_get_more_than_there_is(serve: Callable[[socket.socket], None]) -> None:
    began = time.monotonic()
    with server(serve) as port, pytest.raises(SendingError, match=r"no answer within 0\.5 s"):
        Sender(total_seconds=0.5).post(target(port), [HERE], b"{}", {})
    assert time.monotonic() - began < 60


@pytest.mark.parametrize("answer", [b"", b"hello\r\n\r\n", b"HTTP/1.1 2000 OK\r\n\r\n", b"\x00" * 4000])
def test_what_is_no_answer_is_an_error_with_a_sentence(answer: bytes) -> None:
    with server(answering(answer)) as port, pytest.raises(SendingError):
        Sender().post(target(port), [HERE], b"{}", {})


@contextmanager
def certificate_for(name: str, directory: Path) -> Iterator[tuple[ssl.SSLContext, ssl.SSLContext]]:
    """TLS of a server with a certificate for this name, and of a client that trusts it."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = directory / "certificate.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    pem.write_bytes(certificate.public_bytes(serialization.Encoding.PEM) + private)
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(pem)
    yield serving, ssl.create_default_context(cafile=str(pem))


def test_the_certificate_is_checked_for_the_name_and_sni_names_it(tmp_path: Path) -> None:
    asked: list[str | None] = []
    with certificate_for("receiver.example", tmp_path) as (serving, trusting):
        serving.sni_callback = lambda _socket, name, _context: asked.append(name)
        with server(answering(OK), serving) as port:
            good = target(port, scheme="https")
            assert Sender(tls=trusting).post(good, [HERE], b"{}", {}).status == 204
            assert asked == ["receiver.example"]
            with pytest.raises(SendingError, match="certificate is not accepted"):
                Sender(tls=trusting).post(target(port, scheme="https", host="other.example"), [HERE], b"{}", {})
            with pytest.raises(SendingError, match="certificate is not accepted"):
                Sender().post(good, [HERE], b"{}", {})
