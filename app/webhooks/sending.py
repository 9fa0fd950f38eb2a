"""One POST to one vetted address. No redirect is followed, no proxy is asked, and it ends after a fixed time.

The connection goes to the address; `Host`, SNI and the certificate are about the name.
"""

import contextlib
import ssl
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import httpcore
import httpx

from app.version import VERSION
from app.webhooks.addresses import Address
from app.webhooks.targets import Target

CONNECT_SECONDS: Final = 5.0
TOTAL_SECONDS: Final = 15.0
MOST_BODY_BYTES: Final = 4096
"""Of an answer's body, which is thrown away: read so that receivers are not cut off while they write a short one."""


class SendingError(Exception):
    """No answer has come; the message says why, without an address and without the receiver's words."""


@dataclass(frozen=True)
class Answer:
    """What a receiver has said."""

    status: int
    retry_after: int = 0
    """Seconds that it asks to be left alone for (RFC 9110, 10.2.3); a date counts as none."""


class Sender:
    """Sends; safe for threads."""

    def __init__(self, *, total_seconds: float = TOTAL_SECONDS, tls: ssl.SSLContext | None = None) -> None:
        """Give each attempt `total_seconds`, from the connection's first packet to the answer's last byte."""
        self._total_seconds = total_seconds
        # certifi's authorities, or those of SSL_CERT_FILE: as for every other call that the service makes.
        self._tls = tls or httpx.create_ssl_context()

    def post(self, target: Target, addresses: Sequence[Address], body: bytes, headers: Mapping[str, str]) -> Answer:
        """Send `body` to the first of the addresses that takes a connection.

        Raises:
            SendingError: none does, or no answer comes in time, or what comes is no HTTP.
        """
        backend = _VettedAddresses(addresses, time.monotonic() + self._total_seconds)
        sent = {"Host": target.authority, "User-Agent": f"streamline/{VERSION}", "Connection": "close"} | dict(headers)
        url = httpcore.URL(
            scheme=target.scheme.encode(), host=target.host.encode(), port=target.port, target=target.path.encode()
        )
        try:
            with (
                httpcore.ConnectionPool(ssl_context=self._tls, network_backend=backend) as pool,
                pool.stream("POST", url, headers=list(sent.items()), content=body) as answer,
            ):
                status, retry_after = answer.status, _retry_after(answer.headers)
                with contextlib.suppress(httpcore.TimeoutException, httpcore.NetworkError, httpcore.ProtocolError):
                    _read_some(answer.iter_stream())  # whatever comes of it, the status is what counts
        except httpcore.ConnectTimeout:
            raise SendingError(f"no connection within {CONNECT_SECONDS:g} s") from None
        except httpcore.TimeoutException:
            raise SendingError(f"no answer within {self._total_seconds:g} s") from None
        except httpcore.NetworkError as error:
            raise SendingError(_reason(error)) from None
        except httpcore.ProtocolError:
            raise SendingError("the answer is no HTTP") from None
        return Answer(status, retry_after)


def _read_some(pieces: Iterable[bytes]) -> None:
    read = 0
    for piece in pieces:
        read += len(piece)
        if read >= MOST_BODY_BYTES:
            return


def _retry_after(headers: Iterable[tuple[bytes, bytes]]) -> int:
    value = next((value for name, value in headers if name.lower() == b"retry-after"), b"")
    return int(value) if value.isdigit() and len(value) < 10 else 0


def _reason(error: httpcore.NetworkError) -> str:
    cause = error.__context__  # the pool raises it anew without its cause
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"the certificate is not accepted: {cause.verify_message}"[:200]
    if isinstance(cause, ssl.SSLError):
        return "no TLS connection comes about"
    return "no connection comes about" if isinstance(error, httpcore.ConnectError) else "the connection was cut off"


class _VettedAddresses(httpcore.NetworkBackend):
    """Connects to the given addresses whatever the URL's host is, and to nothing after the deadline."""

    def __init__(self, addresses: Sequence[Address], deadline: float) -> None:
        self._addresses = addresses
        self._deadline = deadline
        self._below = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        refusal: Exception = httpcore.ConnectError("there is no address")
        for address in self._addresses:
            seconds = min(CONNECT_SECONDS, _left(self._deadline))
            try:
                stream = self._below.connect_tcp(str(address), port, seconds, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                refusal = error
            else:
                return _TimedStream(stream, self._deadline)
        raise refusal


class _TimedStream(httpcore.NetworkStream):
    """A stream whose every step ends at the deadline: one byte now and then does not hold a thread for ever."""

    def __init__(self, stream: httpcore.NetworkStream, deadline: float) -> None:
        self._stream = stream
        self._deadline = deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, _left(self._deadline))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, _left(self._deadline))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        inner = self._stream.start_tls(ssl_context, server_hostname, _left(self._deadline))
        return _TimedStream(inner, self._deadline)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


def _left(deadline: float) -> float:
    seconds = deadline - time.monotonic()
    if seconds <= 0:
        raise httpcore.ReadTimeout("the time for this attempt is over")
    return seconds
