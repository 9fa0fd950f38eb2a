"""Probes, metrics and the names of requests."""

import shutil

from sqlalchemy import text

from app.jobs import repository
from tests.integration.api.conftest import JOB, Service


def test_a_ready_service_names_its_parts(service: Service) -> None:
    assert service.http.get("/healthz").json() == {"status": "ok"}
    ready = service.http.get("/readyz")
    assert ready.status_code == 200
    assert ready.json() == {"status": "ok", "database": "ok", "broker": "ok", "storage": "ok"}


def test_readiness_names_the_part_that_is_away(service: Service) -> None:
    store = service.parts.settings.store_dir
    aside = store.with_name("aside")
    store.rename(aside)
    try:
        answer = service.http.get("/readyz")
    finally:
        shutil.rmtree(store, ignore_errors=True)
        aside.rename(store)
    assert answer.status_code == 503
    assert answer.json()["storage"] == "away"


def test_a_replica_whose_database_lacks_a_migration_is_not_ready_and_one_of_an_older_release_is(
    service: Service,
) -> None:
    def revision(name: str) -> None:
        with service.sessions.begin() as session:
            session.execute(text("UPDATE alembic_version SET version_num = :name"), {"name": name})

    with service.sessions() as session:
        newest = session.scalar(text("SELECT version_num FROM alembic_version"))
    try:
        revision("0009")
        answer = service.http.get("/readyz")
        assert (answer.status_code, answer.json()["database"]) == (503, "behind")
        revision("9999")
        assert service.http.get("/readyz").json()["database"] == "ok", "a newer release has migrated already"
    finally:
        revision(str(newest))


def test_metrics_count_the_jobs_of_each_state(service: Service) -> None:
    service.submit()
    assert 'streamline_jobs{state="queued"} 1.0' in service.http.get("/metrics").text


def test_metrics_tell_how_long_requests_and_the_queue_take_by_routes_and_not_by_paths(service: Service) -> None:
    job = service.submit()["id"]
    service.http.get(f"/v1/jobs/{job}")
    service.http.get("/nothing/at/all/here")
    text = service.http.get("/metrics").text
    lines = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert float(lines["streamline_queue_age_seconds"]) >= 0
    assert float(lines['streamline_request_seconds_count{method="GET",route="/v1/jobs/{job_id}",status="200"}']) >= 1
    assert float(lines['streamline_served_bytes_total{route="/v1/jobs/{job_id}"}']) > 100
    assert "streamline_leases_expired_total" in lines
    assert job not in text


def test_a_job_keeps_the_id_of_the_request_that_made_it(service: Service) -> None:
    made = service.http.post("/v1/jobs", json=JOB, headers={"X-Request-ID": "ci-8"}).json()["id"]
    with service.sessions.begin() as session:
        claim = repository.claim(session, made, owner="worker", lease_seconds=60)
    assert claim is not None
    assert claim.request_id == "ci-8"


def test_a_request_keeps_the_id_that_a_client_gave_it(service: Service) -> None:
    assert service.http.get("/healthz", headers={"X-Request-ID": "ci-7"}).headers["x-request-id"] == "ci-7"
    forged = service.http.get("/healthz", headers={"X-Request-ID": "x" * 65})
    assert forged.headers["x-request-id"] != "x" * 65
