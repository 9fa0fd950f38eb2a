"""A person logs in with a key once; the browser's login is good for what the key is, and for our own pages alone."""

from collections.abc import Iterator
from dataclasses import dataclass

import httpx
import pytest
from sqlalchemy import delete, select, update

from app.auth import audit, keys
from app.auth.ended_logins import forget
from app.auth.logins import COOKIE, SECONDS
from app.auth.scopes import Scope
from app.db.clock import db_now
from app.db.models import EndedLoginRow
from tests.integration.api.conftest import JOB, MODEL, Service, problem_of, running

PAGE = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


@dataclass
class Person:
    """A browser's view of a service with keys."""

    service: Service
    key: str
    key_id: str
    http: httpx.Client

    @property
    def own(self) -> dict[str, str]:
        return {"Origin": self.service.url, "Sec-Fetch-Site": "same-origin"} | PAGE

    def log_in(self, key: str | None = None, **form: str) -> httpx.Response:
        return self.http.post("/login", data={"key": key or self.key} | form, headers=self.own)


@pytest.fixture(params=[Scope.SUBMIT])
def person(service: Service, request: pytest.FixtureRequest) -> Iterator[Person]:
    with service.sessions.begin() as session:
        session.execute(delete(EndedLoginRow))
        row, key = keys.create(session, "person", request.param)
    with httpx.Client(base_url=service.url, timeout=30) as http:
        yield Person(service, key, row.id, http)
    with service.sessions.begin() as session:
        session.delete(session.merge(row))


def test_a_page_leads_to_the_login_and_the_login_back(person: Person) -> None:
    for page in ("/", "/?state=failed", "/new", "/datasets", "/compare", "/models", f"/models/{MODEL}", "/jobs/none"):
        away = person.http.get(page, headers=PAGE)
        assert away.status_code == 303
        assert away.headers["location"].startswith("/login?next=/")
        form = person.http.get(away.headers["location"], headers=PAGE)
        assert form.status_code == 200
        assert 'type="password"' in form.text
    entered = person.log_in(next="/?state=failed")
    assert (entered.status_code, entered.headers["location"]) == (303, "/?state=failed")
    assert "state=failed" in str(person.http.get("/?state=failed", headers=PAGE).url)
    assert person.http.get("/", headers=PAGE).status_code == 200
    assert person.log_in(next="https://elsewhere.example").headers["location"] == "/"


def test_programs_are_told_401_as_ever(person: Person) -> None:
    for path in ("/", "/models", "/v1/jobs"):
        answer = person.http.get(path, headers={"Accept": "application/json"})
        assert problem_of(answer, 401)["code"] == "invalid_credentials"
    assert person.http.get("/v1/jobs", headers=PAGE).status_code == 401, "the API is no page"


def test_the_browsers_own_dialog_is_a_challenge_away(person: Person) -> None:
    asked = person.http.post("/login/browser?next=/models", headers=PAGE | person.own)
    assert asked.status_code == 401
    assert 'Basic realm="Streamline' in asked.headers["www-authenticate"]
    by_dialog = httpx.BasicAuth("anything", person.key)
    typed = person.http.post("/login/browser?next=/models", headers=PAGE | person.own, auth=by_dialog)
    assert (typed.status_code, typed.headers["location"]) == (303, "/models")
    prolonged = person.http.post("/login/browser?next=/models", headers=PAGE | person.own)
    assert prolonged.status_code == 401, "a login makes no other one: logging out would leave that"
    assert "set-cookie" not in prolonged.headers
    assert person.http.get("/login/browser", headers=PAGE, auth=by_dialog).status_code == 405
    elsewhere = PAGE | {"Origin": "https://elsewhere.example"}
    forged = person.http.post("/login/browser", headers=elsewhere, auth=by_dialog)
    assert forged.status_code == 401, "another site logs nobody in"
    assert "set-cookie" not in forged.headers
    mistyped = person.http.get("/models", headers=PAGE, auth=httpx.BasicAuth("anything", "hf_wrong"))
    assert mistyped.status_code == 401, "the dialog opens again"


def test_the_cookie_is_out_of_reach_of_scripts_and_holds_no_key(person: Person) -> None:
    cookie = person.log_in().headers["set-cookie"]
    assert cookie.startswith(f"{COOKIE}=")
    assert {"HttpOnly", "SameSite=lax", "Path=/"} <= set(cookie.split("; "))
    assert "Secure" not in cookie, "this service speaks plain http"
    assert person.key[3:] not in cookie
    assert person.http.get("/", headers=PAGE).text.count(person.key) == 0


def test_the_audit_log_names_the_key_that_has_logged_in(person: Person) -> None:
    person.log_in("hf_wrong")
    person.log_in()
    with person.service.sessions() as session:
        refused, entered = audit.recent(session, limit=2)
    assert (refused.key_id, refused.target, refused.status) == ("", "/login", 403)
    assert (entered.key_id, entered.key_name, entered.status) == (person.key_id, "person", 303)


def test_a_wrong_key_is_no_login(person: Person) -> None:
    refused = person.log_in("hf_wrong")
    assert refused.status_code == 403
    assert "This key is not valid" in refused.text
    assert "set-cookie" not in refused.headers
    assert person.http.get("/", headers=PAGE).status_code == 303


def test_a_login_reads_the_api_and_the_hub_too(person: Person) -> None:
    person.log_in()
    for path in ("/v1/jobs", f"/{MODEL}/resolve/main/config.json", f"/api/models/{MODEL}"):
        assert person.http.get(path).status_code == 200, path


def test_a_login_changes_things_for_our_own_pages_alone(person: Person) -> None:
    person.log_in()
    assert person.http.post("/v1/jobs", json=JOB, headers=person.own).status_code == 202
    foreign: list[dict[str, str]] = [
        {},
        {"Origin": "https://elsewhere.example"},
        {"Origin": "null"},
        {"Origin": person.service.url, "Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ]
    for headers in foreign:
        answer = person.http.post("/v1/jobs", json=JOB, headers=headers)
        assert problem_of(answer, 403)["code"] == "cross_site_request", headers
        new = person.http.post("/api/repos/create", json={"name": "x", "organization": "team"}, headers=headers)
        assert new.status_code == 401, headers
        for path in ("/login", "/logout"):
            assert person.http.post(path, data={"key": person.key}, headers=headers).status_code == 403, path
    key = {"Authorization": f"Bearer {person.key}", "Origin": "https://elsewhere.example"}
    assert person.http.post("/v1/jobs", json=JOB, headers=key).status_code == 202, "a key that is sent is proof enough"


def test_a_key_that_is_sent_counts_and_not_the_login(person: Person) -> None:
    person.log_in()
    wrong = person.http.get("/v1/jobs", headers={"Authorization": "Bearer hf_wrong"})
    assert problem_of(wrong, 401)["code"] == "invalid_credentials"


def test_logging_out_and_revoking_the_key_end_a_login(person: Person) -> None:
    person.log_in()
    assert person.http.get("/", headers=PAGE).status_code == 200
    assert person.http.post("/logout", headers=person.own).headers["location"] == "/login"
    assert person.http.get("/", headers=PAGE).status_code == 303
    person.log_in()
    with person.service.sessions.begin() as session:
        assert keys.revoke(session, person.key_id)
    assert person.http.get("/", headers=PAGE).status_code == 303


def test_logging_out_ends_every_copy_of_that_login_on_every_replica_and_no_other_login(person: Person) -> None:
    person.log_in()
    copied = {"Cookie": f"{COOKIE}={person.http.cookies[COOKIE]}"}
    other_browser = httpx.Client(base_url=person.service.url, timeout=30)
    with other_browser as elsewhere, running(person.service.parts.settings) as two:
        person.http, mine = elsewhere, person.http
        person.log_in()
        for replica in (person.service, two):
            assert replica.http.get("/v1/jobs", headers=copied).status_code == 200
        assert mine.post("/logout", headers=person.own).status_code == 303
        for replica in (person.service, two):
            assert problem_of(replica.http.get("/v1/jobs", headers=copied), 401)["code"] == "invalid_credentials"
            assert replica.http.get(f"/api/models/{MODEL}", headers=copied).status_code == 401
            assert replica.http.get("/", headers=copied | PAGE).status_code == 303
        assert mine.post("/logout", headers=copied | person.own).status_code == 303, "once more changes nothing"
        assert elsewhere.get("/v1/jobs").status_code == 200, "the other browser's login goes on"


def test_an_ended_login_is_remembered_for_as_long_as_its_cookie_could_count(person: Person) -> None:
    person.log_in()
    person.http.post("/logout", headers=person.own)
    with person.service.sessions.begin() as session:
        forget(session, limit=100)
        assert len(session.scalars(select(EndedLoginRow)).all()) == 1
        session.execute(update(EndedLoginRow).values(ended_at=db_now(-SECONDS - 90_000)))
    with person.service.sessions.begin() as session:
        assert forget(session, limit=100) == 1


def test_what_a_login_does_is_done_by_its_key(person: Person) -> None:
    person.log_in()
    job = person.http.post("/v1/jobs", json=JOB, headers=person.own).json()
    with person.service.sessions() as session:
        entries = {entry.target: entry.key_name for entry in audit.recent(session, key_id=person.key_id)}
    assert entries["/v1/jobs"] == "person"
    assert job["id"] in person.http.get("/", headers=PAGE).text


@pytest.mark.parametrize("person", [Scope.READ], indirect=True)
def test_a_reader_is_not_led_to_what_it_may_not_do(person: Person) -> None:
    person.log_in()
    page = person.http.get("/", headers=PAGE).text
    assert 'href="/new"' not in page
    assert 'href="/keys"' not in page
    assert person.http.get("/keys", headers=PAGE).status_code == 403
    refused = person.http.get("/new", headers=PAGE)
    assert refused.status_code == 403
    assert "The API key does not allow this" in refused.text
    assert all(shown in refused.text for shown in ("Log out", 'href="/models"', "person · read")), "the way back"
    assert 'href="/keys"' not in refused.text
    assert 'href="/login?next=/new"' in refused.text
    again = person.http.get("/login?next=/new", headers=PAGE)
    assert 'type="password"' in again.text
    assert problem_of(person.http.post("/v1/jobs", json=JOB, headers=person.own), 403)["code"] == "insufficient_scope"


def test_a_service_without_keys_asks_for_none(service: Service) -> None:
    away = service.http.get("/login?next=/models", headers=PAGE)
    assert (away.status_code, away.headers["location"]) == (303, "/models")
    start = service.http.get("/", headers=PAGE)
    assert start.status_code == 200
    assert "Log out" not in start.text
