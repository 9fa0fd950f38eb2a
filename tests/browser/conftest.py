"""The real pages in a real Chromium, with a job that has everything to show."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright
from sqlalchemy import update

from app.auth.logins import COOKIE
from app.db.models import JobRow
from app.jobs import repository
from app.jobs.event_log import Event
from tests.conftest import CHROMIUM
from tests.integration.api.conftest import Service, running, settings_for
from tests.unit.app.report.reports import JOB, full

_QUIET = [
    "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-component-update",
    "--disable-sync",
]  # fmt: skip


# What a busy machine paints late is painted all the same.
expect.set_options(timeout=60_000)
_FIRST_PAINT = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime"


@dataclass
class Visit:
    """A page, with what it said and asked for."""

    page: Page
    origin: str
    said: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    @property
    def asked_elsewhere(self) -> list[str]:
        """Requests to other places than the service itself."""
        return [url for url in self.asked if not url.startswith((self.origin, "data:"))]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    # No longer than a module: as long as it is there an event loop runs, and no test can start one of its own.
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=str(CHROMIUM), args=_QUIET)
        yield chromium
        chromium.close()


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running(settings_for(tmp_path_factory.mktemp("service") / "data", None)) as found:
        yield found


def finished_job(service: Service, directory: Path, *, verdict: str = "pass", **changes: Any) -> str:
    """A job that has succeeded with a full report; `changes` are the report's."""
    job_id: str = service.submit(labels={"n": str(len(list(directory.iterdir())))})["id"]
    report = full() | changes
    path = directory / f"{job_id}.json"
    path.write_text(json.dumps(report))
    service.parts.artefacts.write(job_id, {"report.json": path})
    result = {**JOB["result"], "removed_layers": report["removed_layers"], "metrics": report["metrics"]}
    values = {"state": "succeeded", "verdict": verdict, "result": result, "gates": JOB["gates"]}
    with service.sessions.begin() as session:
        session.execute(update(JobRow).where(JobRow.id == job_id).values(**values))
    return job_id


def at_work(service: Service, **changes: Any) -> tuple[str, Callable[..., None]]:
    """A job that a worker has taken, and how to tell what it does: events as (kind, data)."""
    job_id: str = service.submit(**changes)["id"]
    with service.sessions.begin() as session:
        claim = repository.claim(session, job_id, owner="test", lease_seconds=600)
    assert claim is not None

    def tell(*events: tuple[str, dict[str, Any]], stage: str = "train", progress: float = 0.5) -> None:
        with service.sessions.begin() as session:
            told = [Event(kind, {"time": time.time(), "stage": stage} | data) for kind, data in events]
            repository.advance(session, job_id, claim.token, stage=stage, progress=progress, events=told)

    return job_id, tell


def scores(layers: int = 24) -> dict[str, Any]:
    """An event of scores as of a real model: long windows change more, and those in the middle least."""
    table = [
        [round(1 - size**0.8 * (0.01 + 0.002 * abs(first + size / 2 - 14)), 4) for size in range(1, layers - first + 1)]
        for first in range(layers)
    ]
    return {"metric": "cosine", "better": "higher", "table": table}


def assert_painted_within(milliseconds: float, page: Page) -> None:
    """The quickest of several loads, so that nobody else has the processor meanwhile."""
    for _ in range(20):
        page.reload()
        page.wait_for_function(_FIRST_PAINT)  # elements are there before they are painted
        if page.evaluate(_FIRST_PAINT) < milliseconds:
            return
    raise AssertionError(f"{page.url} is never painted within {milliseconds} ms")


def hold_timers(page: Page) -> Callable[[], None]:
    """Timers that the page sets from now on go off when the returned function is called."""
    page.evaluate("() => { window.held = []; window.setTimeout = then => held.push(then); }")
    return lambda: page.evaluate("() => { held.splice(0).forEach(then => then()); }")


@contextmanager
def visit(
    browser: Browser, service: Service, path: str, *, width: int = 1280, dark: bool = False, key_id: str | None = None
) -> Iterator[Visit]:
    """Open a page of the service and note what it says on the console and what it asks for.

    With `key_id` the browser has a login of that key.
    """
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme="dark" if dark else "light")
    if key_id is not None:
        login = service.parts.logins.issue(key_id)
        context.add_cookies([{"name": COOKIE, "value": login, "url": service.url, "httpOnly": True}])
    context.set_default_timeout(120_000)
    found = Visit(context.new_page(), service.url)
    found.page.on("console", lambda message: found.said.append(f"{message.type}: {message.text}"))
    found.page.on("pageerror", lambda error: found.said.append(str(error)))
    found.page.on("request", lambda request: found.asked.append(request.url))
    found.page.goto(f"{service.url}{path}")
    yield found
    context.close()
