"""What can go wrong between a client and the service."""

from collections.abc import Mapping
from typing import Any

import httpx

from app.version import VERSION, VERSION_HEADER


class ProblemError(Exception):
    """The service refused a request (RFC 9457): `code` is stable, `detail` says what to do, `pointer` the field."""

    def __init__(self, status: int, body: Mapping[str, Any], *, service_version: str | None = None) -> None:
        self.status = status
        self.code = str(body.get("code", "unknown"))
        self.detail = str(body.get("detail") or body.get("title") or f"the service answered {status}")
        self.pointer = body.get("pointer")
        said = f"{self.detail} ({self.pointer})" if self.pointer else self.detail
        if service_version not in {None, VERSION}:
            said += f" The service is version {service_version} and this client {VERSION}: that may be why."
        super().__init__(said)


class UnreachableError(Exception):
    """No service answers at the address, or it hung up in the middle, or it cannot be asked (`reason` says why)."""

    def __init__(self, url: str, reason: object = None) -> None:
        said = f"{url} cannot be asked: {str(reason).rstrip('.')}.{_guess(reason)}"
        super().__init__(
            f"{said} Look at STREAMLINE_URL and STREAMLINE_API_KEY."
            if reason
            else f"No Streamline service answers at {url}. Start one with `streamline up`, or set STREAMLINE_URL."
        )


def _guess(reason: object) -> str:
    return " Is it http:// instead of https://?" if "WRONG_VERSION_NUMBER" in str(reason) else ""


class WaitTimeoutError(Exception):
    """The job was not final in time; it goes on running."""

    def __init__(self, job_id: str) -> None:
        super().__init__(f"Job {job_id} is not final yet; it goes on.")


def checked(answer: httpx.Response) -> httpx.Response:
    """The answer, if it is no refusal.

    Raises:
        ProblemError: it is one; where the service is of another version than this client, the message says so.
    """
    if answer.is_success or answer.status_code == httpx.codes.NOT_MODIFIED:
        return answer
    try:
        body = answer.json()
    except ValueError:
        body = {}
    raise ProblemError(
        answer.status_code,
        body if isinstance(body, dict) else {},
        service_version=answer.headers.get(VERSION_HEADER),
    )
