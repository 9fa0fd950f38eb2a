"""Keys that are made, listed and revoked over HTTP by who may: shown once, bounded, and in the audit log."""

import asyncio
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import httpx
import pytest
from sqlalchemy import update

from app import upkeep
from app.auth import audit, keys
from app.auth.scopes import Scope
from app.client import AsyncStreamline, ProblemError, Streamline
from app.db.clock import db_now
from app.db.models import ApiKeyRow
from tests.integration.api.conftest import Service, problem_of
from tests.integration.api.webhooked import emptied


@pytest.fixture
def service(running_service: Service) -> Iterator[Service]:
    """A service without jobs and keys; its client has the key of an administrator while the test lasts."""
    yield emptied(running_service)
    running_service.http.headers.pop("Authorization", None)


@pytest.fixture
def admin(service: Service) -> str:
    """Id of the administrator's key."""
    with service.sessions.begin() as session:
        row, key = keys.create(session, "Ada", Scope.ADMIN)
    service.http.headers["Authorization"] = f"Bearer {key}"
    return row.id


def make(service: Service, **body: Any) -> dict[str, Any]:
    answer = service.http.post("/v1/keys", json={"name": "nightly"} | body)
    assert answer.status_code == 201, answer.text
    assert answer.headers["location"] == f"/v1/keys/{answer.json()['id']}"
    assert answer.headers["cache-control"] == "no-store"
    made: dict[str, Any] = answer.json()
    return made


def listed(service: Service, **query: str) -> list[dict[str, Any]]:
    answer = service.http.get("/v1/keys", params=query)
    assert answer.status_code == 200, answer.text
    items: list[dict[str, Any]] = answer.json()["items"]
    return items


def asked_with(service: Service, key: str) -> httpx.Response:
    return service.http.get("/v1/jobs", headers={"Authorization": f"Bearer {key}"})


def test_a_key_is_made_shown_once_used_and_revoked(service: Service, admin: str) -> None:
    made = make(service, scope="read", days=30, max_queued_jobs=3, max_bytes_per_day=10**12)
    assert made["key"].startswith(made["prefix"])
    assert made["prefix"] == f"hf_{made['id']}"
    assert (made["name"], made["scope"], made["state"], made["max_queued_jobs"]) == ("nightly", "read", "valid", 3)
    assert asked_with(service, made["key"]).status_code == 200
    seen = service.http.get(f"/v1/keys/{made['id']}")
    assert seen.json() == {name: value for name, value in made.items() if name != "key"}
    assert [one["id"] for one in listed(service)] == [made["id"], admin]
    assert made["key"] not in seen.text + str(listed(service))
    revoked = service.http.post(f"/v1/keys/{made['id']}/revoke").json()
    assert revoked["state"] == "revoked"
    assert asked_with(service, made["key"]).status_code == 401
    again = service.http.post(f"/v1/keys/{made['id']}/revoke").json()
    assert again == revoked, "when it was revoked stays"
    assert problem_of(service.http.post("/v1/keys/none/revoke"), 404)["code"] == "key_not_found"


def test_limits_and_an_end_that_a_key_is_made_with_hold(service: Service, admin: str) -> None:
    made = make(service, max_requests_per_minute=1, days=1.5)
    assert asked_with(service, made["key"]).status_code == 200
    assert problem_of(asked_with(service, made["key"]), 429)["code"] == "quota_exceeded"
    with service.sessions.begin() as session:
        session.execute(update(ApiKeyRow).where(ApiKeyRow.id == made["id"]).values(expires_at=db_now(-1)))
    assert service.http.get(f"/v1/keys/{made['id']}").json()["state"] == "expired"


def test_who_has_made_and_revoked_which_key_is_in_the_audit_log_without_a_key(service: Service, admin: str) -> None:
    made = make(service)
    service.http.post(f"/v1/keys/{made['id']}/revoke", headers={"X-Request-ID": "ticket-7"})
    with service.sessions() as session:
        rows = audit.recent(session)
        entries = [(row.key_id, row.key_name, row.action, row.target, row.status) for row in rows]
        assert made["key"] not in str([vars(row) for row in rows])
        assert {row.request_id for row in rows if row.action == "keys revoke"} == {"ticket-7"}
    assert entries == [
        (admin, "Ada", "keys create", made["id"], 0),
        (admin, "Ada", "POST", "/v1/keys", 201),
        (admin, "Ada", "keys revoke", made["id"], 0),
        (admin, "Ada", "POST", f"/v1/keys/{made['id']}/revoke", 200),
    ]


@pytest.mark.parametrize(
    ("body", "code", "pointer"),
    [
        ({}, "missing_field", "/name"),
        ({"name": ""}, "out_of_range", "/name"),
        ({"name": " "}, "invalid_request", "/name"),
        ({"name": "a\nb"}, "invalid_request", "/name"),
        ({"name": "x" * 65}, "out_of_range", "/name"),
        ({"name": "x", "scope": "root"}, "not_available", "/scope"),
        ({"name": "x", "days": 0}, "out_of_range", "/days"),
        ({"name": "x", "days": 1e9}, "out_of_range", "/days"),
        ({"name": "x", "days": "7"}, "wrong_type", "/days"),
        ({"name": "x", "max_queued_jobs": 0}, "out_of_range", "/max_queued_jobs"),
        ({"name": "x", "max_requests_per_minute": 2**31}, "out_of_range", "/max_requests_per_minute"),
        ({"name": "x", "max_bytes_per_day": 1.5}, "wrong_type", "/max_bytes_per_day"),
        ({"name": "x", "key": "hf_mine"}, "unknown_field", "/key"),
    ],
)
def test_what_no_key_can_be_is_refused_at_its_field(
    service: Service, admin: str, body: dict[str, Any], code: str, pointer: str
) -> None:
    problem = service.refused(body, path="/v1/keys")
    assert (problem["code"], problem["pointer"]) == (code, pointer)
    assert len(listed(service)) == 1


def test_lesser_keys_see_and_change_no_key(service: Service, admin: str) -> None:
    made = make(service)
    lesser = {"Authorization": f"Bearer {made['key']}"}
    for method, path in (
        ("GET", "/v1/keys"), ("POST", "/v1/keys"), ("GET", f"/v1/keys/{admin}"), ("POST", f"/v1/keys/{admin}/revoke")
    ):  # fmt: skip
        answer = service.http.request(method, path, headers=lesser, json={"name": "x", "scope": "admin"})
        assert problem_of(answer, 403)["code"] == "insufficient_scope", (method, path)


def test_a_service_without_keys_gets_its_first_one_where_it_runs(service: Service) -> None:
    problem = service.refused({"name": "first", "scope": "admin"}, path="/v1/keys", status=409)
    assert problem["code"] == "no_first_key"
    assert "streamline keys create" in problem["detail"]
    assert service.http.get("/v1/jobs").status_code == 200, "nobody is shut out"
    assert listed(service) == []


def test_a_key_does_not_revoke_itself_so_that_one_is_left_to_make_others(service: Service, admin: str) -> None:
    problem = problem_of(service.http.post(f"/v1/keys/{admin}/revoke"), 409)
    assert problem["code"] == "own_key"
    assert listed(service, state="valid")[0]["id"] == admin


def test_keys_are_listed_by_state_and_in_pages_newest_first(service: Service, admin: str) -> None:
    made = [make(service, name=str(number))["id"] for number in range(4)]
    service.http.post(f"/v1/keys/{made[1]}/revoke")
    with service.sessions.begin() as session:
        session.execute(update(ApiKeyRow).where(ApiKeyRow.id == made[2]).values(expires_at=db_now(-1)))
    assert [one["id"] for one in listed(service, state="revoked")] == [made[1]]
    assert [one["id"] for one in listed(service, state="expired")] == [made[2]]
    assert [one["id"] for one in listed(service, state="valid")] == [made[3], made[0], admin]
    found, cursor = [], None
    while True:
        query = {"limit": "2"} | ({"cursor": cursor} if cursor else {})
        page = service.http.get("/v1/keys", params=query).json()
        found += [one["id"] for one in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert found == [*reversed(made), admin]
    assert problem_of(service.http.get("/v1/keys?cursor=x"), 422)["parameter"] == "cursor"


def test_when_a_key_was_used_last_is_told(service: Service, admin: str) -> None:
    made = make(service)
    upkeep.note_use(service.sessions, service.parts.holders)
    by_id = {one["id"]: one for one in listed(service)}
    assert by_id[admin]["last_used_at"] is not None
    assert by_id[made["id"]]["last_used_at"] is None
    asked_with(service, made["key"])
    upkeep.note_use(service.sessions, service.parts.holders)
    used = service.http.get(f"/v1/keys/{made['id']}").json()["last_used_at"]
    assert datetime.fromisoformat(used) >= datetime.fromisoformat(made["created_at"])


def test_both_clients_do_all_of_it(service: Service, admin: str) -> None:
    key = service.http.headers["Authorization"].removeprefix("Bearer ")
    with Streamline(service.url, key) as client:
        made = client.create_key("bot", scope="read", days=7)
        assert [one["id"] for one in client.api_keys()] == [made["id"], admin]
        assert client.revoke_key(made["id"])["state"] == "revoked"
        with pytest.raises(ProblemError, match="itself|came with"):
            client.revoke_key(admin)

    async def the_same() -> None:
        async with AsyncStreamline(service.url, key) as client:
            other = await client.create_key("other", max_queued_jobs=1)
            assert len(await client.api_keys()) == 3
            assert (await client.revoke_key(other["id"]))["max_queued_jobs"] == 1

    asyncio.run(the_same())
