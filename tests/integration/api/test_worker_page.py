"""The page of workers: what the API says of them, with what waits for whom."""

import re
from collections.abc import Iterator

import pytest
from sqlalchemy import delete, update

from app.core.device_memory import card_bytes
from app.db.clock import db_now
from app.db.models import JobRow, WorkerRow
from app.jobs import workers
from tests.integration.api.conftest import Service

PAGE = {"Accept": "text/html"}


@pytest.fixture(autouse=True)
def no_workers(service: Service) -> Iterator[None]:
    with service.sessions.begin() as session:
        session.execute(delete(WorkerRow))
    yield
    with service.sessions.begin() as session:
        session.execute(delete(WorkerRow))


def rows_of(text: str) -> dict[str, str]:
    """What each class's row says, without tags."""
    rows = re.findall(r'<tr data-class="(\w+)"[^>]*>(.*?)</tr>', text, re.DOTALL)
    return {name: " ".join(re.sub(r"<[^>]+>", " ", row).split()) for name, row in rows}


def test_the_page_shows_who_is_there_and_what_waits_for_a_larger_one(service: Service) -> None:
    assert "No worker has been seen in the last day" in service.http.get("/workers", headers=PAGE).text
    small, large = service.submit()["id"], service.submit()["id"]
    with service.sessions.begin() as session:
        session.execute(update(JobRow).where(JobRow.id == large).values(required_memory_bytes=card_bytes(80)))
    rows = rows_of(service.http.get("/workers", headers=PAGE).text)
    assert set(rows) == {"8g", "80g"}
    assert all("no worker is there" in row for row in rows.values())
    with service.sessions.begin() as session:
        for name, memory in (("gpu-1:1", 24), ("gpu-2:1", 24), ("gpu-3:1", 80)):
            workers.seen(session, name, card_bytes(memory))
        session.execute(update(WorkerRow).where(WorkerRow.name == "gpu-3:1").values(seen_at=db_now(-3600)))
    page = service.http.get("/workers", headers=PAGE).text
    rows = rows_of(page)
    assert list(rows) == ["80g", "24g", "8g"]
    assert re.match(r"80 GB 0 \d{4}-\d\d-\d\d \d\d:\d\d 1 needs a larger worker$", rows["80g"])
    assert re.match(r"24 GB 2 \S+ \S+ 0 none waits$", rows["24g"])
    assert rows["8g"] == "8 GB 0 of its own, 2 larger not in the last day 1 when a worker is free"
    assert "gpu-1" not in page, "not the machines' names"
    for job in (small, large):
        service.http.post(f"/v1/jobs/{job}/cancel")


def test_an_open_page_asks_for_the_list_and_is_told_cheaply_that_nothing_is_new(service: Service) -> None:
    page = service.http.get("/workers", headers=PAGE)
    assert page.headers["etag"].strip('"') in page.text
    again = PAGE | {"If-None-Match": page.headers["etag"]}
    assert service.http.get("/workers?part=list", headers=again).status_code == 304
    assert service.http.get("/workers", headers=again).status_code == 200, "the page itself is always whole"
    with service.sessions.begin() as session:
        workers.seen(session, "a:1", None)
    changed = service.http.get("/workers?part=list", headers=again)
    assert rows_of(changed.text)["any"].startswith("any workers that take every job")
    assert "<html" not in changed.text
