"""The typed Python client of the HTTP API: what the `streamline` command uses, and what a notebook imports.

>>> from app.client import Streamline
>>> with Streamline() as service:
...     job = service.submit({"model": {"repo": "demo/stories-24l"}, "target": {"sparsity": 0.25}})
...     job = service.wait(job["id"])
...     print(job["verdict"], job["result"]["metrics"]["speedup"])
"""

import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

DEFAULT_URL = "http://127.0.0.1:8000"
FINAL_STATES = frozenset({"succeeded", "failed", "cancelled"})
Job = dict[str, Any]

_LONG_POLL_SECONDS = 20
_UNHURRIED = httpx.Timeout(None, connect=5.0)  # copying and hashing take seconds per gigabyte
_GIVE_UP_SECONDS = 120.0  # a service that restarts is back by then


class ProblemError(Exception):
    """The service refused a request (RFC 9457): `code` is stable, `detail` says what to do, `pointer` the field."""

    def __init__(self, status: int, body: Mapping[str, Any]) -> None:
        self.status = status
        self.code = str(body.get("code", "unknown"))
        self.detail = str(body.get("detail") or body.get("title") or f"the service answered {status}")
        self.pointer = body.get("pointer")
        super().__init__(f"{self.detail} ({self.pointer})" if self.pointer else self.detail)


class UnreachableError(Exception):
    """No service answers at the address, or it hung up in the middle."""

    def __init__(self, url: str) -> None:
        super().__init__(
            f"No Streamline service answers at {url}. Start one with `streamline up`, or set STREAMLINE_URL."
        )


class WaitTimeoutError(Exception):
    """The job was not final in time; it goes on running."""


class Streamline:
    """A connection to one service.

    Args:
        url: address of the service; default STREAMLINE_URL, else the loopback address that `streamline up` uses.
        api_key: default STREAMLINE_API_KEY; a service on loopback without keys needs none.
    """

    def __init__(self, url: str | None = None, api_key: str | None = None) -> None:
        given = (url or os.environ.get("STREAMLINE_URL") or DEFAULT_URL).rstrip("/")
        self.url = given if "://" in given else f"http://{given}"
        self.api_key = api_key or os.environ.get("STREAMLINE_API_KEY")
        headers = {"Authorization": f"Bearer {self.api_key}"} if self.api_key else {}
        self.on_silence: Callable[[str], None] | None = None
        """Told a sentence, once, when a service that is waited for does not answer."""
        self.trust_env = not _is_loopback(self.url)
        """Whether proxy variables apply: a proxy knows nothing of this machine's own addresses."""
        self._http = httpx.Client(
            base_url=self.url,
            headers=headers,
            timeout=httpx.Timeout(60.0, connect=5.0),
            trust_env=self.trust_env,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._http.close()

    def submit(self, spec: Mapping[str, Any], *, idempotency_key: str | None = None) -> Job:
        """Submit a job; with a key, sending it again gives the same job."""
        headers = {"Idempotency-Key": idempotency_key} if idempotency_key else {}
        return self._json("POST", "/v1/jobs", json=spec, headers=headers)

    def plan(self, spec: Mapping[str, Any]) -> dict[str, Any]:
        """What a job of this specification would remove, add and need, without making one."""
        return self._json("POST", "/v1/plans", json=spec)

    def job(self, job_id: str) -> Job:
        """The job as it stands."""
        return self._json("GET", f"/v1/jobs/{job_id}")

    def jobs(self, **filters: str | int | None) -> dict[str, Any]:
        """A page of jobs, newest first: {"items", "next_cursor"}."""
        return self._json("GET", "/v1/jobs", params={k: v for k, v in filters.items() if v is not None})

    def watch(self, job_id: str, *, timeout: float | None = None) -> Iterator[Job]:
        """The job now, and again after each change, until it is final. A service that restarts is waited for.

        Raises:
            WaitTimeoutError: it was not final within `timeout` seconds.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        etag = ""
        while True:
            left = None if deadline is None else deadline - time.monotonic()
            poll = _LONG_POLL_SECONDS if left is None else max(0, min(_LONG_POLL_SECONDS, int(left)))
            headers = {"If-None-Match": etag} if etag else {}
            answer = self._patiently(
                lambda headers=headers, poll=poll: self._http.get(  # type: ignore[misc]
                    f"/v1/jobs/{job_id}", params={"wait": poll} if headers else {}, headers=headers
                )
            )
            if answer.status_code != httpx.codes.NOT_MODIFIED:
                job = _checked(answer).json()
                etag = answer.headers.get("ETag", "")
                yield job
                if job["state"] in FINAL_STATES:
                    return
            elif poll == 0:
                time.sleep(0.2)
            if deadline is not None and time.monotonic() >= deadline:
                raise WaitTimeoutError(job_id)

    def wait(self, job_id: str, *, timeout: float | None = None, on_change: Callable[[Job], None] | None = None) -> Job:
        """Wait until the job is final and return it.

        Raises:
            WaitTimeoutError: it was not final within `timeout` seconds.
        """
        job: Job = {}
        for job in self.watch(job_id, timeout=timeout):
            if on_change:
                on_change(job)
        return job

    def events(self, job_id: str, *, after: int = 0) -> list[dict[str, Any]]:
        """The job's events with an id greater than `after`."""
        found: list[dict[str, Any]] = []
        next_after: int | None = after
        while next_after is not None:
            page = self._json(
                "GET", f"/v1/jobs/{job_id}/events", params={"after": next_after}, headers={"Accept": "application/json"}
            )
            found += page["items"]
            next_after = page["next_after"]
        return found

    def cancel(self, job_id: str) -> Job:
        """Ask for the job to be cancelled."""
        return self._json("POST", f"/v1/jobs/{job_id}/cancel")

    def retry(self, job_id: str) -> Job:
        """Let a failed or cancelled job go on from its last finished stage."""
        return self._json("POST", f"/v1/jobs/{job_id}/retry")

    def report(self, job_id: str) -> dict[str, Any]:
        """The job's report."""
        return self._json("GET", f"/v1/jobs/{job_id}/report", headers={"Accept": "application/json"})

    def upload_dataset(self, path: Path, *, name: str | None = None) -> dict[str, Any]:
        """Upload calibration or evaluation text (JSONL, or plain text)."""
        with path.open("rb") as file:
            return self._json(
                "POST",
                "/v1/datasets",
                files={"file": (path.name, file)},
                data={"name": name or path.name},
                timeout=_UNHURRIED,
            )

    def datasets(self) -> list[dict[str, Any]]:
        """The data sets of the service."""
        return list(self._json("GET", "/v1/datasets")["items"])

    def import_model(self, path: Path, repo: str) -> dict[str, Any]:
        """Import a model directory that lies on the service's machine, below one of its STREAMLINE_MODEL_ROOTS."""
        return self._json("POST", "/v1/imports", json={"path": str(path), "repo": repo}, timeout=_UNHURRIED)

    def ready(self) -> bool:
        """Whether the service and everything that it needs answer."""
        try:
            return self._http.get("/readyz", timeout=5.0).is_success
        except httpx.TransportError:
            return False

    def _json(self, method: str, path: str, **arguments: Any) -> dict[str, Any]:
        try:
            answer = self._http.request(method, path, **arguments)
        except httpx.TransportError:
            raise UnreachableError(self.url) from None
        body: dict[str, Any] = _checked(answer).json()
        return body

    def _patiently(self, request: Callable[[], httpx.Response]) -> httpx.Response:
        """Send a harmless request until it is answered: connections drop, and services restart."""
        give_up = time.monotonic() + _GIVE_UP_SECONDS
        pause = 0.2
        told = False
        while True:
            try:
                answer = request()
                if answer.status_code not in {502, 503, 504}:
                    return answer
            except httpx.TransportError:
                pass
            if time.monotonic() > give_up:
                raise UnreachableError(self.url)
            if self.on_silence and not told and pause > 1:  # a second or two are a restart
                told = True
                self.on_silence(f"{self.url} does not answer; trying for {_GIVE_UP_SECONDS:.0f} s.")
            time.sleep(pause)
            pause = min(2 * pause, 5.0)


def _is_loopback(url: str) -> bool:
    host = httpx.URL(url).host
    return host in {"localhost", "::1"} or host.startswith("127.")


def _checked(answer: httpx.Response) -> httpx.Response:
    if answer.is_success:
        return answer
    try:
        body = answer.json()
    except ValueError:
        body = {}
    raise ProblemError(answer.status_code, body if isinstance(body, dict) else {})
