"""The migrations make the tables that the code expects, and fill in what older versions did not note."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Engine, text

from app.db.migrate import alembic_config, migrate
from app.db.models import Base
from app.db.session import connect


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "postgres":
        found: str = request.getfixturevalue("postgres_url")
        return found
    return f"sqlite:///{tmp_path / 'test.db'}"


@pytest.fixture
def engine(url: str) -> Iterator[Engine]:
    engine = connect(url)
    yield engine
    engine.dispose()


def test_every_migration_together_makes_the_tables_of_the_code(url: str, engine: Engine) -> None:
    migrate(url)
    with engine.connect() as connection:
        differences = compare_metadata(MigrationContext.configure(connection), Base.metadata)
    assert differences == []


def test_older_commits_and_jobs_get_what_is_noted_now(url: str, engine: Engine) -> None:
    command.upgrade(alembic_config(url), "0003")
    spec = {"model": {"repo": "a/b"}, "output": {"repo": "a/c"}, "benchmark": {"rivals": [f"a/d@{'0' * 40}"]}}
    moment = "'2026-01-01 00:00:00+00:00'"
    with engine.begin() as connection:
        connection.execute(
            text(
                "INSERT INTO repos (id, name, owner, private, created_at, last_modified) "
                f"VALUES (1, 'a/b', '', :yes, {moment}, {moment})"
            ),
            {"yes": True},
        )
        for id_, parent in ((1, None), (2, "1" * 40)):
            connection.execute(
                text(
                    "INSERT INTO commits (id, repo_id, oid, parent, message, author, created_at) "
                    f"VALUES (:id, 1, :oid, :parent, 'm', '', {moment})"
                ),
                {"id": id_, "oid": str(id_) * 40, "parent": parent},
            )
        for id_, files in ((1, {"same": "s", "changed": "1", "gone": "g"}), (2, {"same": "s", "changed": "2"})):
            rows = [{"id": id_, "path": path, "sha256": content * 64} for path, content in files.items()]
            insert = (
                "INSERT INTO commit_files (commit_id, path, size, sha256, git_oid) VALUES (:id, :path, 1, :sha256, '')"
            )
            connection.execute(text(insert), rows)
        connection.execute(
            text(
                "INSERT INTO jobs (id, state, progress, version, spec, labels, model, owner, attempt, failures, "
                "fencing_token, cancel_requested, published_count, created_at, event_count, gates) VALUES ('j', "
                f"'queued', 0, 1, :spec, '{{}}', 'a/b', '', 0, 0, 0, :no, 0, {moment}, 0, '[]')"
            ),
            {"spec": json.dumps(spec), "no": False},
        )
    migrate(url)
    with engine.connect() as connection:
        since = connection.execute(text("SELECT commit_id, path, since FROM commit_files ORDER BY commit_id, path"))
        assert [tuple(row) for row in since] == [
            (1, "changed", 1), (1, "gone", 1), (1, "same", 1), (2, "changed", 2), (2, "same", 1)
        ]  # fmt: skip
        assert [tuple(row) for row in connection.execute(text("SELECT * FROM commit_removals"))] == [(2, "gone")]
        named = connection.execute(text("SELECT name, private FROM job_repos ORDER BY name"))
        assert [(name, bool(private)) for name, private in named] == [("a/b", True), ("a/c", True), ("a/d", True)]
