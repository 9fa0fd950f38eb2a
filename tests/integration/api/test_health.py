"""Probes, metrics and the names of requests."""

import shutil

from tests.integration.api.conftest import Service


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


def test_metrics_count_the_jobs_of_each_state(service: Service) -> None:
    service.submit()
    assert 'streamline_jobs{state="queued"} 1.0' in service.http.get("/metrics").text


def test_a_request_keeps_the_id_that_a_client_gave_it(service: Service) -> None:
    assert service.http.get("/healthz", headers={"X-Request-ID": "ci-7"}).headers["x-request-id"] == "ci-7"
    forged = service.http.get("/healthz", headers={"X-Request-ID": "x" * 65})
    assert forged.headers["x-request-id"] != "x" * 65
