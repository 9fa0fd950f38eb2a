# Made from asynchronous.py by `make client`: change that file, not this one.
"""A connection to one service: a method per call of the API, and those that wait for jobs."""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
from httpx_sse import EventSource, SSEError

from app.client import calls
from app.client.calls import FINAL_STATES, LONG_POLL_SECONDS, RESTART_SECONDS, Call, Event, Job
from app.client.failures import ProblemError, UnreachableError, WaitTimeoutError, checked
from app.client.retries import (
    FIRST_PAUSE_SECONDS,
    LONGEST_PAUSE_SECONDS,
    TRIES_OF_A_RESTART,
    Retries,
    passes,
    reason_of,
)


class Streamline:
    """A connection to one service.

    Args:
        url: address of the service; default STREAMLINE_URL, else the loopback address that `streamline up` uses.
        api_key: default STREAMLINE_API_KEY; a service on loopback without keys needs none.
        patience: seconds for which a request is sent again while the service is busy or the connection drops. A
            service that has never answered is not waited for.
        expected: the service is known to be there, as a pipeline knows it: one that does not answer is restarting, and
            is waited for until it should be back.
    """

    def __init__(
        self, url: str | None = None, api_key: str | None = None, *, patience: float = 30.0, expected: bool = False
    ) -> None:
        self.connection = calls.connection(url, api_key)
        """Arguments of an httpx client for this service."""
        self.url = calls.shown(self.connection["base_url"])
        """Its address as it may be shown: without a password."""
        self.on_silence: Callable[[str], None] | None = None
        """Told a sentence, once, when a service that is waited for does not answer."""
        self._patience = max(patience, RESTART_SECONDS) if expected else patience
        self._answered = expected
        self._http = httpx.Client(**self.connection)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._http.close()

    def submit(self, spec: Mapping[str, Any], *, idempotency_key: str | None = None) -> Job:
        """Submit a job; with a key, sending it again gives the same job."""
        return self._json(calls.submit(spec, idempotency_key))

    def plan(self, spec: Mapping[str, Any]) -> dict[str, Any]:
        """What a job of this specification would remove, add and need, without making one."""
        return self._json(calls.plan(spec))

    def job(self, job_id: str) -> Job:
        """The job as it stands."""
        return self._json(calls.job(job_id))

    def jobs(self, **filters: str | int | None) -> dict[str, Any]:
        """A page of jobs, newest first: {"items", "next_cursor"}."""
        return self._json(calls.jobs(filters))

    def watch(self, job_id: str, *, timeout: float | None = None) -> Iterator[Job]:
        """The job now, and again after each change, until it is final. A service that restarts is waited for.

        Raises:
            WaitTimeoutError: it was not final within `timeout` seconds.
        """
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        etag, looked = "", False
        while True:
            left = max(0.0, deadline - time.monotonic())
            seconds = int(min(LONG_POLL_SECONDS, left)) if looked else 0
            try:
                answer = self._send(calls.poll(job_id, etag, seconds), patience=min(RESTART_SECONDS, left))
            except (UnreachableError, ProblemError) as fault:
                if left < RESTART_SECONDS and passes(fault):  # it may be back later, but nobody waits that long
                    raise WaitTimeoutError(job_id) from None
                raise
            if answer.status_code != httpx.codes.NOT_MODIFIED:
                job = answer.json()
                etag, looked = answer.headers.get("ETag", ""), True
                yield job
                if job["state"] in FINAL_STATES:
                    return
            elif seconds == 0:
                time.sleep(0.2)
            if time.monotonic() >= deadline:
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

    def events(self, job_id: str, *, after: int = 0, last: int | None = None) -> list[Event]:
        """The job's events so far with an id greater than `after`; with `last`, only that many of the newest."""
        found: list[Event] = []
        next_after: int | None = after
        while next_after is not None:
            page = self._json(calls.events(job_id, next_after, last))
            found += page["items"]
            last = None  # of what there was at the first look
            next_after = page["next_after"]
        return found

    def stream(self, job_id: str, *, after: int = 0) -> Iterator[Event]:
        """The job's events behind `after` as they happen, until it is final; each once, whatever drops in between."""
        pause = FIRST_PAUSE_SECONDS
        while True:
            answer = self._send(calls.stream(job_id, after), patience=RESTART_SECONDS, stream=True)
            try:
                if answer.status_code == httpx.codes.NO_CONTENT:
                    return
                for sent in EventSource(answer).iter_sse():
                    if sent.id and sent.data:
                        event = calls.event(sent)
                        after, pause = event["id"], FIRST_PAUSE_SECONDS
                        yield event
            except SSEError as error:  # something else than the service answers: no later try ends otherwise
                raise UnreachableError(self.url, error) from None
            except httpx.TransportError:
                pass
            finally:
                answer.close()
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)

    def cancel(self, job_id: str) -> Job:
        """Ask for the job to be cancelled."""
        return self._json(calls.cancel(job_id))

    def retry(self, job_id: str) -> Job:
        """Let a failed or cancelled job go on from its last finished stage."""
        return self._json(calls.retry(job_id))

    def report(self, job_id: str) -> dict[str, Any]:
        """The job's report."""
        return self._json(calls.report(job_id))

    def report_page(self, job_id: str) -> str:
        """The job's report as a page of HTML that needs nothing else."""
        page = self._send(calls.report_page(job_id))
        return page.text

    def model_commit(self, repo: str, revision: str = "main") -> str:
        """The commit that a branch or tag of a repository names now."""
        found = self._json(calls.model_commit(repo, revision))
        return str(found["sha"])

    def upload_dataset(self, path: Path, *, name: str | None = None) -> dict[str, Any]:
        """Upload calibration or evaluation text (JSONL, or plain text)."""
        with path.open("rb") as file:
            return self._json(calls.upload_dataset(file, name or path.name))

    def workers(self) -> list[dict[str, Any]]:
        """The workers that have been seen lately, by their GPU memory: {"memory_bytes", "count"}, the largest first."""
        found = self._json(calls.workers())
        return list(found["items"])

    def datasets(self) -> list[dict[str, Any]]:
        """The data sets of the service."""
        found = self._json(calls.datasets())
        return list(found["items"])

    def import_model(self, path: Path, repo: str) -> dict[str, Any]:
        """Import a model directory that lies on the service's machine, below one of its STREAMLINE_MODEL_ROOTS."""
        return self._json(calls.import_model(path, repo))

    def add_webhook(
        self,
        url: str,
        *,
        events: Sequence[str] | None = None,
        jobs: str | None = None,
        job_id: str | None = None,
        description: str | None = None,
    ) -> dict[str, Any]:
        """Register an address that is told how jobs end: its "secret" is in the answer, and in no later one.

        Args:
            url: where messages are sent.
            events: such as job.failed; default: every end of a job.
            jobs: `own` (default) or `visible`: which jobs it is told of.
            job_id: the one job that it is about, instead of all.
            description: for the list.
        """
        named = None if events is None else list(events)
        wanted = {"events": named, "jobs": jobs, "description": description}
        return self._json(calls.add_webhook(url, job_id, wanted))

    def webhooks(self) -> list[dict[str, Any]]:
        """The key's webhooks, newest first."""
        found: list[dict[str, Any]] = []
        cursor: str | None = None
        while True:
            page = self._json(calls.webhooks(cursor))
            found += page["items"]
            cursor = page["next_cursor"]
            if cursor is None:
                return found

    def remove_webhook(self, webhook_id: str) -> None:
        """Remove a webhook; what still waits for it is not sent."""
        self._send(calls.remove_webhook(webhook_id))

    def enable_webhook(self, webhook_id: str) -> dict[str, Any]:
        """Tell a webhook that was disabled what happens from now on."""
        return self._json(calls.enable_webhook(webhook_id))

    def rotate_webhook(self, webhook_id: str) -> dict[str, Any]:
        """Give a webhook another "secret", which is in the answer, and in no later one; for a day both sign."""
        return self._json(calls.rotate_webhook(webhook_id))

    def deliveries(self, webhook_id: str, **filters: str | int | None) -> dict[str, Any]:
        """A page of what the webhook was sent and is to be sent, newest first: {"items", "next_cursor"}."""
        return self._json(calls.deliveries(webhook_id, filters))

    def redeliver(self, webhook_id: str, delivery_id: str) -> dict[str, Any]:
        """Send a message again, now, whatever came of it before."""
        return self._json(calls.redeliver(webhook_id, delivery_id))

    def create_key(
        self,
        name: str,
        *,
        scope: str | None = None,
        days: float | None = None,
        max_queued_jobs: int | None = None,
        max_requests_per_minute: int | None = None,
        max_bytes_per_day: int | None = None,
    ) -> dict[str, Any]:
        """Make an API key (for scope `admin`): the "key" itself is in the answer, and in no later one.

        Args:
            name: whose key it is, for the list.
            scope: `read`, `submit` (default) or `admin`.
            days: how long it is valid; default: until it is revoked.
            max_queued_jobs: how many jobs of it may wait at a time; default, here and below: no limit.
            max_requests_per_minute: how many requests it may send.
            max_bytes_per_day: how many bytes of bodies it may send.
        """
        limits = {
            "max_queued_jobs": max_queued_jobs,
            "max_requests_per_minute": max_requests_per_minute,
            "max_bytes_per_day": max_bytes_per_day,
        }
        return self._json(calls.create_key({"name": name, "scope": scope, "days": days} | limits))

    def api_keys(self) -> list[dict[str, Any]]:
        """All API keys (for scope `admin`), newest first."""
        found: list[dict[str, Any]] = []
        cursor: str | None = None
        while True:
            page = self._json(calls.keys(cursor))
            found += page["items"]
            cursor = page["next_cursor"]
            if cursor is None:
                return found

    def revoke_key(self, key_id: str) -> dict[str, Any]:
        """Make an API key (for scope `admin`) worthless from now on, with its logins."""
        return self._json(calls.revoke_key(key_id))

    def ready(self) -> bool:
        """Whether the service and everything that it needs answer."""
        try:
            answer = self._http.get("/readyz", timeout=5.0)
        except httpx.TransportError:
            return False
        return answer.is_success

    def _json(self, call: Call) -> dict[str, Any]:
        answer = self._send(call)
        body: dict[str, Any] = answer.json()
        return body

    def _send(self, call: Call, *, patience: float | None = None, stream: bool = False) -> httpx.Response:
        """Send the request until it is answered for good.

        Given `patience`, also to a service that has never answered: who waits for a job knows that there is one.
        """
        wait = self._patience if patience is None else patience
        waits = patience is not None
        retries = Retries(wait if call.repeatable else 0, reachable=self._answered or waits, waits=waits)
        request = self._http.build_request(call.method, call.path, **call.arguments)
        while True:
            outcome: httpx.Response | httpx.TransportError
            try:
                outcome = self._http.send(request, stream=stream)
                self._answered = True
            except httpx.TransportError as error:
                outcome = error
            pause = retries.pause(outcome)
            if pause is None:
                break
            if isinstance(outcome, httpx.Response):
                outcome.close()
            if self.on_silence and retries.tries == TRIES_OF_A_RESTART:
                self.on_silence(f"{self.url} does not answer or is busy; trying on.")
            time.sleep(pause)
        if not isinstance(outcome, httpx.Response):
            raise UnreachableError(self.url, reason_of(outcome)) from outcome
        if stream and not outcome.is_success:
            outcome.read()
        return checked(outcome)
