"""Once an API key exists every call needs one, and its scope decides."""

import httpx
import pytest

from app.auth import keys
from app.auth.scopes import Scope
from app.db.models import ApiKeyRow
from app.hub import directory
from tests.integration.api.conftest import JOB, MODEL, Service, problem_of


def test_keys_and_scopes_are_enforced_from_the_first_key_on(service: Service) -> None:
    assert service.http.get("/v1/jobs", headers={"Authorization": "Bearer hf_left_over"}).status_code == 200
    made: dict[Scope, tuple[ApiKeyRow, str]] = {}
    with service.sessions.begin() as session:
        for scope in Scope:
            made[scope] = keys.create(session, scope.value, scope)

    def call(scope: Scope | None, method: str = "GET", path: str = "/v1/jobs", **more: object) -> httpx.Response:
        headers = {"Authorization": f"Bearer {made[scope][1]}"} if scope else {}
        return service.http.request(method, path, headers=headers, **more)  # type: ignore[arg-type]

    try:
        nobody = call(None)
        assert problem_of(nobody, 401)["code"] == "invalid_credentials"
        assert problem_of(nobody, 401)["detail"].startswith("No API key was sent")
        assert [one.partition(" ")[0] for one in nobody.headers.get_list("www-authenticate")] == ["Bearer", "Basic"]
        wrong = service.http.get("/v1/jobs", headers={"Authorization": "Bearer hf_wrong"})
        assert problem_of(wrong, 401)["code"] == "invalid_credentials"
        assert problem_of(wrong, 401)["detail"].startswith("The API key that was sent is not valid")
        assert call(Scope.READ).status_code == 200
        refused = call(Scope.READ, "POST", json=JOB)
        assert problem_of(refused, 403)["code"] == "insufficient_scope"
        assert call(Scope.SUBMIT, "POST", json=JOB).status_code == 202
        assert call(Scope.ADMIN, "POST", json=JOB).status_code == 202
        assert call(Scope.READ, "POST", "/v1/plans", json=JOB).status_code == 200, "a dry run changes nothing"
        assert service.http.get("/healthz").status_code == 200, "probes carry no keys"
        with service.sessions.begin() as session:
            assert keys.revoke(session, made[Scope.READ][0].id)
        assert problem_of(call(Scope.READ), 401)["code"] == "invalid_credentials"
    finally:
        with service.sessions.begin() as session:
            for row, _ in made.values():
                session.delete(session.merge(row))


def test_an_idempotency_key_belongs_to_the_api_key_that_used_it(service: Service) -> None:
    with service.sessions.begin() as session:
        made = [keys.create(session, name, Scope.SUBMIT) for name in ("a", "b")]
    try:
        ids = {
            service.http.post(
                "/v1/jobs", json=JOB, headers={"Authorization": f"Bearer {key}", "Idempotency-Key": "same"}
            ).json()["id"]
            for _, key in made
        }
        assert len(ids) == 2
    finally:
        with service.sessions.begin() as session:
            for row, _ in made:
                session.delete(session.merge(row))


@pytest.mark.parametrize("host", ["rebound.example", "rebound.example:80", "127.0.0.1.example", "10.0.0.1", "[::2]:1"])
def test_without_keys_only_loopback_hosts_are_answered(service: Service, host: str) -> None:
    foreign = {"Host": host}
    for path in ("/v1/jobs", "/"):
        problem = problem_of(service.http.get(path, headers=foreign), 403)
        assert problem["code"] == "foreign_request"
        assert "streamline keys create" in problem["detail"]
    hub = service.http.get("/api/models", headers=foreign)
    assert hub.status_code == 403
    assert "streamline keys create" in hub.headers["x-error-message"]
    assert service.http.get("/healthz", headers=foreign).status_code == 200, "probes come under any name"


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8000", "127.0.0.1:1", "127.8.8.8", "[::1]", "[::1]:8000"])
def test_every_name_of_this_machine_is_answered(service: Service, host: str) -> None:
    assert service.http.get("/v1/jobs", headers={"Host": host}).status_code == 200


def test_without_keys_no_other_sites_page_can_change_anything(service: Service) -> None:
    for origin in ("https://evil.example", "null", "http://[", "http://127.0.0.1:1"):
        answer = service.http.post("/v1/jobs", json=JOB, headers={"Origin": origin})
        assert problem_of(answer, 403)["code"] == "foreign_request"
    assert service.http.post("/v1/jobs", json=JOB, headers={"Origin": service.url}).status_code == 202
    with service.sessions.begin() as session:
        row, key = keys.create(session, "ci", Scope.ADMIN)
    try:
        headers = {"Authorization": f"Bearer {key}", "Host": "streamline.example", "Origin": "https://evil.example"}
        assert service.http.post("/v1/jobs", json=JOB, headers=headers).status_code == 202, "the key is proof enough"
    finally:
        with service.sessions.begin() as session:
            session.delete(session.merge(row))


def test_a_browser_shows_the_pages_to_who_types_a_key_and_no_foreign_page_uses_it(service: Service) -> None:
    with service.sessions.begin() as session:
        row, key = keys.create(session, "person", Scope.SUBMIT)
    typed = httpx.BasicAuth("anything", key)
    own, foreign = {"Origin": service.url}, {"Origin": "https://elsewhere.example"}
    try:
        for page in ("/", "/models", f"/models/{MODEL}", f"/{MODEL}/resolve/main/config.json"):
            challenge = service.http.get(page)
            assert challenge.status_code == 401
            assert 'Basic realm="Streamline' in challenge.headers["www-authenticate"], "the browser asks for a key"
            assert service.http.get(page, auth=typed, headers=foreign).status_code == 200
            for wrong in (httpx.BasicAuth(key, ""), httpx.BasicAuth("anything", "hf_wrong")):
                assert service.http.get(page, auth=wrong).status_code == 401
        for headers, status in ((own, 202), (foreign, 401), ({}, 401)):
            assert service.http.post("/v1/jobs", json=JOB, auth=typed, headers=headers).status_code == status
        new = {"name": "typed", "organization": "team"}
        for headers, status in ((foreign, 401), (own, 200)):
            assert service.http.post("/api/repos/create", json=new, auth=typed, headers=headers).status_code == status
        assert service.http.get("/models", headers={"Authorization": "Basic not base64"}).status_code == 401
    finally:
        with service.sessions.begin() as session:
            session.delete(session.merge(row))
            repo = directory.find_repo(session, "team/typed")
            assert repo is not None
            directory.delete_repo(session, repo)
