"""Migrations keep what older versions wrote, and only one runs at a time.

`rows-NNNN.json` holds every table as the release of that revision left it, a job in each state among them. It is never
changed; a release that adds a revision adds a file.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from sqlalchemy import Engine, MetaData, create_engine, event, inspect, select, text

from app.auth import keys
from app.db.migrate import alembic_config, migrate
from app.db.models import DatasetRow, EndedLoginRow, IdempotencyRow, JobEventRow, WebhookRow
from app.db.session import connect, session_factory
from app.jobs import repository
from app.jobs.states import State
from app.jobs.views import Job
from app.webhooks import deliveries
from tests.conftest import REPOSITORY
from tests.service_process import wait_until

RELEASES = sorted(Path(__file__).parent.glob("rows-*.json"))


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'old.db'}"
    found: str = request.getfixturevalue("postgres_url")
    return found


@pytest.fixture
def engine(url: str) -> Iterator[Engine]:
    made = create_engine(url)
    yield made
    made.dispose()


def load(engine: Engine, rows: dict[str, list[dict[str, Any]]]) -> None:
    """Put the rows into the tables of the revision that the database has."""

    def decoded(value: Any) -> Any:
        if isinstance(value, dict) and set(value) == {"time"} and isinstance(value["time"], str):
            return datetime.fromisoformat(value["time"]).replace(tzinfo=UTC)
        return value

    tables = MetaData()
    tables.reflect(engine)
    with engine.begin() as connection:
        for table in tables.sorted_tables:
            for row in rows.get(table.name, ()):
                connection.execute(table.insert().values({name: decoded(value) for name, value in row.items()}))


@pytest.mark.parametrize("release", RELEASES, ids=lambda path: path.stem)
def test_a_migration_keeps_every_job_and_every_key_of_an_older_release(url: str, engine: Engine, release: Path) -> None:
    rows = json.loads(release.read_text())
    command.upgrade(alembic_config(url), release.stem.partition("-")[2])
    load(engine, rows)
    migrate(url)
    assert {job["state"] for job in rows["jobs"]} == set(State), "the fixture has a job in every state"
    ours = connect(url)
    sessions = session_factory(ours)
    with sessions() as session:
        for old in rows["jobs"]:
            job = repository.get(session, old["id"])
            assert job is not None
            kept = ("state", "stage", "spec", "labels", "attempt", "failures", "fencing_token", "error", "result")
            assert {name: getattr(job, name) for name in kept} == {name: old[name] for name in kept}
            assert job.created_at == datetime.fromisoformat(old["created_at"]["time"]).replace(tzinfo=UTC)
            assert Job.of(job).state == old["state"], "clients see it"
            assert job.required_memory_bytes == old.get("required_memory_bytes"), "of older ones any worker may take it"
        assert len(session.scalars(select(JobEventRow)).all()) == len(rows["job_events"])
        assert len(session.scalars(select(IdempotencyRow)).all()) == len(rows["idempotency_keys"])
        assert {key.id: key.revoked_at is not None for key, _ in keys.listing(session)} == {
            key["id"]: key["revoked_at"] is not None for key in rows["api_keys"]
        }
        assert all(keys.limits_of(key) == keys.Limits() for key, _ in keys.listing(session))
        assert {dataset.id: dataset.owner for dataset in session.scalars(select(DatasetRow))} == {
            dataset["id"]: dataset.get("owner", "") for dataset in rows["datasets"]
        }, "who uploaded the older ones is not known"
        assert {row.id: (row.secret, row.events) for row in session.scalars(select(WebhookRow))} == {
            webhook["id"]: (webhook["secret"], webhook["events"]) for webhook in rows.get("webhooks", ())
        }
        assert {row.id: row.disabled_reason for row in session.scalars(select(WebhookRow))} == {
            webhook["id"]: webhook.get("disabled_reason", "gone" if webhook["disabled_at"] else None)
            for webhook in rows.get("webhooks", ())
        }, "before there were other reasons, it was that one"
        assert {row.sha256 for row in session.scalars(select(EndedLoginRow))} == {
            login["sha256"] for login in rows.get("ended_logins", ())
        }
        waiting = [one["id"] for one in rows.get("webhook_deliveries", ()) if one["state"] == "pending"]
        assert list(deliveries.due(session, limit=10)) == waiting
    by_state = {job["state"]: job["id"] for job in rows["jobs"]}
    with sessions.begin() as session:
        assert repository.expire_leases(session, max_attempts=3) == [by_state["running"]], "its worker is long gone"
        for state in ("queued", "running"):
            assert repository.claim(session, by_state[state], owner="new", lease_seconds=60) is not None
        assert repository.retry(session, by_state["failed"])
        assert repository.retry(session, by_state["cancelled"])
    ours.dispose()


def test_every_migration_can_be_taken_back(url: str, engine: Engine) -> None:
    migrate(url)
    command.downgrade(alembic_config(url), "base")
    assert set(inspect(engine).get_table_names()) <= {"alembic_version"}
    migrate(url)


def _migrating(url: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-m", "app.cli", "migrate"],
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(REPOSITORY), "STREAMLINE_DATABASE_URL": url},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def test_a_migration_that_breaks_off_leaves_the_database_as_it_was(url: str, engine: Engine) -> None:
    def stop(*told: Any) -> None:
        if "CREATE TABLE webhooks" in told[2]:  # of the eighth of ten
            raise ConnectionAbortedError

    event.listen(Engine, "before_cursor_execute", stop)
    try:
        with pytest.raises(ConnectionAbortedError):
            migrate(url)
    finally:
        event.remove(Engine, "before_cursor_execute", stop)
    assert inspect(engine).get_table_names() == [], "nobody sees it half-way, and another one waits for the whole"
    migrate(url)
    assert inspect(engine).has_table("webhooks")


def test_of_migrations_that_start_at_once_one_runs_and_the_others_find_it_done(url: str, engine: Engine) -> None:
    processes = [_migrating(url) for _ in range(3)]
    for process in processes:
        said, _ = process.communicate(timeout=180)
        assert process.returncode == 0, said.decode()
    with engine.connect() as connection:
        assert len(connection.execute(text("SELECT version_num FROM alembic_version")).all()) == 1


@pytest.mark.postgres
def test_a_migration_waits_for_one_under_way(postgres_url: str) -> None:
    engine = create_engine(postgres_url)
    lock = 0x57_12_EA_31
    with engine.connect() as first:
        first.execute(text(f"SELECT pg_advisory_lock({lock})"))
        second = _migrating(postgres_url)
        waiting = text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")
        with engine.connect() as watcher:
            wait_until(lambda: watcher.scalar(waiting), what="the second migration waits")
            assert not inspect(watcher).get_table_names()
        first.execute(text(f"SELECT pg_advisory_unlock({lock})"))
        said, _ = second.communicate(timeout=180)
    assert second.returncode == 0, said.decode()
    engine.dispose()
