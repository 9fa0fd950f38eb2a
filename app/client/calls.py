"""The calls of the API as data: what both clients send, told once."""

import json
import os
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Final
from urllib.parse import quote

import httpx
from httpx_sse import ServerSentEvent

from app.client.failures import UnreachableError

DEFAULT_URL: Final = "http://127.0.0.1:8000"
FINAL_STATES: Final = frozenset({"succeeded", "failed", "cancelled"})
LONG_POLL_SECONDS: Final = 20
RESTART_SECONDS: Final = 120.0
"""A service that restarts is back by then."""
Job = dict[str, Any]
Event = dict[str, Any]
"""{"id": int, "event": kind, "data": {...}}; in a list with its "time"."""

_UNHURRIED = httpx.Timeout(None, connect=5.0)  # copying and hashing take seconds per gigabyte
_JSON = {"Accept": "application/json"}


@dataclass(frozen=True)
class Call:
    """One request. `repeatable`: sending it twice does what sending it once does."""

    method: str
    path: str
    repeatable: bool = True
    arguments: Mapping[str, Any] = field(default_factory=dict)
    """Of httpx's `request`."""


def connection(url: str | None, api_key: str | None) -> dict[str, Any]:
    """The arguments of an httpx client for the service at `url` (default: STREAMLINE_URL, else loopback).

    Raises:
        UnreachableError: the address is none, or the key holds what no header can.
    """
    given = (url or os.environ.get("STREAMLINE_URL") or DEFAULT_URL).rstrip("/")
    given = given.removesuffix("/v1").rstrip("/")  # as it stands in what people copy; each path brings its own
    address = given if "://" in given else f"http://{given}"
    key = (api_key or os.environ.get("STREAMLINE_API_KEY") or "").strip()  # secret files end with a newline
    if not (key.isascii() and (key.isprintable() or not key)):
        raise UnreachableError(shown(address), "the API key holds characters that no key has")
    return {
        "base_url": address,
        "headers": {"Authorization": f"Bearer {key}"} if key else {},
        "timeout": httpx.Timeout(60.0, connect=5.0),
        # A proxy knows nothing of this machine's own addresses.
        "trust_env": not _is_loopback(address),
    }


def shown(address: str) -> str:
    """The address without a user's name and password."""
    try:
        return str(httpx.URL(address).copy_with(userinfo=b"")).rstrip("/")
    except httpx.InvalidURL:
        return re.sub("//[^/]*@", "//", address)


def _is_loopback(url: str) -> bool:
    try:
        host = httpx.URL(url).host
    except httpx.InvalidURL as error:
        raise UnreachableError(shown(url), error) from None
    return host in {"localhost", "::1"} or host.startswith("127.")


def submit(spec: Mapping[str, Any], idempotency_key: str | None) -> Call:
    """With a key of its own if none is given, so that a lost answer can be asked for again."""
    headers = {"Idempotency-Key": idempotency_key or uuid.uuid4().hex}
    return Call("POST", "/v1/jobs", arguments={"json": spec, "headers": headers})


def plan(spec: Mapping[str, Any]) -> Call:
    """A dry run."""
    return Call("POST", "/v1/plans", arguments={"json": spec})


def job(job_id: str) -> Call:
    """A job."""
    return Call("GET", f"/v1/jobs/{job_id}")


def poll(job_id: str, etag: str, seconds: int) -> Call:
    """A job once it is no longer as `etag` says (empty: as it is when this is asked), or after `seconds`."""
    arguments = {"params": {"wait": seconds}, "headers": {"If-None-Match": etag} if etag else {}}
    return Call("GET", f"/v1/jobs/{job_id}", arguments=arguments)


def jobs(filters: Mapping[str, str | int | None]) -> Call:
    """A page of jobs."""
    return Call("GET", "/v1/jobs", arguments={"params": {k: v for k, v in filters.items() if v is not None}})


def events(job_id: str, after: int, last: int | None) -> Call:
    """A page of events."""
    params = {"after": after} | ({} if last is None else {"last": last})
    return Call("GET", f"/v1/jobs/{job_id}/events", arguments={"params": params, "headers": _JSON})


def stream(job_id: str, after: int) -> Call:
    """Events as they happen (WHATWG HTML, section 9.2)."""
    headers = {"Accept": "text/event-stream", "Last-Event-ID": str(after)}
    return Call("GET", f"/v1/jobs/{job_id}/events", arguments={"headers": headers})


def event(sent: ServerSentEvent) -> Event:
    """An event of the stream."""
    return {"id": int(sent.id), "event": sent.event, "data": json.loads(sent.data)}


def cancel(job_id: str) -> Call:
    """Ask for a job to be cancelled."""
    return Call("POST", f"/v1/jobs/{job_id}/cancel")


def retry(job_id: str) -> Call:
    """Queue a failed or cancelled job again; the second time it is refused, and nothing happens."""
    return Call("POST", f"/v1/jobs/{job_id}/retry")


def report(job_id: str) -> Call:
    """A job's report."""
    return Call("GET", f"/v1/jobs/{job_id}/report", arguments={"headers": _JSON})


def report_page(job_id: str) -> Call:
    """A job's report as a page."""
    return Call("GET", f"/v1/jobs/{job_id}/report", arguments={"headers": {"Accept": "text/html"}})


def model_commit(repo: str, revision: str) -> Call:
    """What the hub knows of a revision."""
    return Call("GET", f"/api/models/{repo}/revision/{quote(revision, safe='')}")


def upload_dataset(file: BinaryIO, name: str) -> Call:
    """Upload a data set."""
    arguments = {"files": {"file": (Path(name).name, file)}, "data": {"name": name}, "timeout": _UNHURRIED}
    return Call("POST", "/v1/datasets", repeatable=False, arguments=arguments)


def workers() -> Call:
    """The workers that have been seen, by their memory."""
    return Call("GET", "/v1/workers")


def datasets() -> Call:
    """All data sets."""
    return Call("GET", "/v1/datasets")


def import_model(path: Path, repo: str) -> Call:
    """Import a directory that lies on the service's machine."""
    arguments = {"json": {"path": str(path), "repo": repo}, "timeout": _UNHURRIED}
    return Call("POST", "/v1/imports", repeatable=False, arguments=arguments)


def add_webhook(url: str, job_id: str | None, wanted: Mapping[str, Any]) -> Call:
    """Register an address; twice would be two of them."""
    path = "/v1/webhooks" if job_id is None else f"/v1/jobs/{job_id}/webhooks"
    body = {"url": url} | {key: value for key, value in wanted.items() if value is not None}
    return Call("POST", path, repeatable=False, arguments={"json": body})


def webhooks(cursor: str | None) -> Call:
    """A page of webhooks."""
    params = {"limit": 100} | ({} if cursor is None else {"cursor": cursor})
    return Call("GET", "/v1/webhooks", arguments={"params": params})


def remove_webhook(webhook_id: str) -> Call:
    """Remove a webhook; the second time there is none."""
    return Call("DELETE", f"/v1/webhooks/{quote(webhook_id, safe='')}", repeatable=False)


def enable_webhook(webhook_id: str) -> Call:
    """Enable a webhook."""
    return Call("POST", f"/v1/webhooks/{quote(webhook_id, safe='')}/enable")


def rotate_webhook(webhook_id: str) -> Call:
    """Change a webhook's secret; twice would leave no time for the one that is known."""
    return Call("POST", f"/v1/webhooks/{quote(webhook_id, safe='')}/rotate", repeatable=False)


def deliveries(webhook_id: str, filters: Mapping[str, str | int | None]) -> Call:
    """A page of a webhook's deliveries."""
    params = {key: value for key, value in filters.items() if value is not None}
    return Call("GET", f"/v1/webhooks/{quote(webhook_id, safe='')}/deliveries", arguments={"params": params})


def redeliver(webhook_id: str, delivery_id: str) -> Call:
    """Send a message again."""
    where = f"{quote(webhook_id, safe='')}/deliveries/{quote(delivery_id, safe='')}"
    return Call("POST", f"/v1/webhooks/{where}/redeliver")


def create_key(wanted: Mapping[str, Any]) -> Call:
    """Make an API key; twice would be two of them."""
    body = {key: value for key, value in wanted.items() if value is not None}
    return Call("POST", "/v1/keys", repeatable=False, arguments={"json": body})


def keys(cursor: str | None) -> Call:
    """A page of API keys."""
    params = {"limit": 100} | ({} if cursor is None else {"cursor": cursor})
    return Call("GET", "/v1/keys", arguments={"params": params})


def revoke_key(key_id: str) -> Call:
    """Revoke an API key; the second time nothing changes."""
    return Call("POST", f"/v1/keys/{quote(key_id, safe='')}/revoke")
