"""A database that lacks migrations: every request says so and names the command, and no mistake of ours hides in it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic import command
from sqlalchemy import inspect, text
from sqlalchemy.engine import make_url

from app.auth import keys
from app.auth.keys import Limits
from app.auth.scopes import Scope
from app.db.migrate import alembic_config
from tests.chaos.proxy import Proxy
from tests.integration.api.conftest import JOB, MODEL, Service, problem_of, running, settings_for
from tests.integration.api.test_login import PAGE


@pytest.fixture
def service(running_service: Service) -> Iterator[Service]:
    """A service whose database the test may take back; migrated again afterwards."""
    yield running_service
    command.upgrade(alembic_config(running_service.parts.settings.database), "head")


def take_back(service: Service, revision: str) -> None:
    command.downgrade(alembic_config(service.parts.settings.database), revision)


REQUESTS = [
    ("GET", "/v1/jobs"), ("POST", "/v1/jobs"), ("POST", "/v1/plans"), ("GET", "/v1/jobs/none"), ("GET", "/v1/workers"),
    ("GET", "/v1/webhooks"), ("GET", "/v1/datasets"), ("GET", "/metrics"), ("GET", "/"), ("GET", "/workers"),
    ("GET", f"/api/models/{MODEL}"),
]  # fmt: skip


def tells_what_to_run(service: Service, method: str, path: str, **headers: str) -> None:
    answer = service.http.request(method, path, json=JOB if method == "POST" else None, headers=headers)
    problem = problem_of(answer, 503)
    assert problem["code"] == "database_behind", (method, path)
    assert "`streamline migrate`" in problem["detail"]
    assert "retry-after" not in answer.headers, "it takes a person, and a terminal is not to wait for one"


def test_without_tables_every_request_names_the_command_that_makes_them(service: Service) -> None:
    take_back(service, "base")
    for method, path in REQUESTS:
        tells_what_to_run(service, method, path)
    assert service.http.get("/readyz").json()["database"] == "behind"
    command.upgrade(alembic_config(service.parts.settings.database), "head")
    assert service.http.get("/v1/jobs").status_code == 200, "nothing has to be started anew"


def test_with_the_tables_of_an_older_release_what_needs_the_new_ones_names_the_command(service: Service) -> None:
    take_back(service, "0005")
    tells_what_to_run(service, "GET", "/v1/jobs")
    tells_what_to_run(service, "GET", "/v1/workers")


@pytest.mark.parametrize("revision", ["base", "0005"])
def test_a_browser_is_told_so_on_a_page(service: Service, revision: str) -> None:
    take_back(service, revision)
    own = {"Origin": service.url, "Sec-Fetch-Site": "same-origin"} | PAGE
    missing = ["/", "/workers", f"/models/{MODEL}", "/webhooks", "/keys"] if revision == "base" else ["/", "/workers"]
    answers = [service.http.get(path, headers=PAGE) for path in missing]
    if revision == "base":
        answers += [service.http.get("/login", headers=PAGE)]
        answers += [service.http.post("/login", data={"key": "hf_" + "a" * 40}, headers=own)]
    for answer in answers:
        assert answer.status_code == 503, answer.request.url
        assert answer.headers["content-type"].startswith("text/html")
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert "retry-after" not in answer.headers
        assert "<code>streamline migrate</code>" in answer.text
        assert "database_behind" in answer.text


@pytest.mark.postgres
def test_a_browser_is_told_on_a_page_that_the_database_is_away(postgres_url: str, tmp_path: Path) -> None:
    server = make_url(postgres_url)
    with Proxy(server.port or 5432) as network:
        address = server.set(host="127.0.0.1", port=network.port).render_as_string(hide_password=False)
        with running(settings_for(tmp_path / "data", address)) as service:
            network.cut()
            answer = service.http.get("/login", headers=PAGE)
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
            assert "<h1>" in answer.text
            assert "The database does not answer" in answer.text
            assert str(network.port) not in answer.text, "nor does it tell where it is"
            document = problem_of(service.http.get("/login"), 503)
            assert document["code"] == "unavailable", "a program gets the document"
            network.mend()
            assert service.http.get("/", headers=PAGE).status_code == 200


def test_a_key_with_limits_is_told_so_too_and_nothing_passes_uncounted(service: Service) -> None:
    with service.sessions.begin() as session:
        row, key = keys.create(session, "ci", Scope.SUBMIT, limits=Limits(max_requests_per_minute=5))
        session.execute(text("ALTER TABLE key_usage RENAME TO key_usage_aside"))
        newest = session.scalar(text("SELECT version_num FROM alembic_version"))
        session.execute(text("UPDATE alembic_version SET version_num = '0009'"))
    try:
        tells_what_to_run(service, "GET", "/v1/jobs", Authorization=f"Bearer {key}")
    finally:
        with service.sessions.begin() as session:
            session.execute(text("ALTER TABLE key_usage_aside RENAME TO key_usage"))
            session.execute(text("UPDATE alembic_version SET version_num = :newest"), {"newest": newest})
            session.delete(session.merge(row))


def test_a_table_that_is_missing_from_a_migrated_database_is_a_fault_of_ours(service: Service) -> None:
    with service.sessions.begin() as session:
        assert inspect(session.connection()).has_table("workers")
        session.execute(text("ALTER TABLE workers RENAME TO workers_aside"))
    try:
        assert problem_of(service.http.get("/v1/workers"), 500)["code"] == "internal_error"
    finally:
        with service.sessions.begin() as session:
            session.execute(text("ALTER TABLE workers_aside RENAME TO workers"))
