"""Every route against every scope: the matrix is made from the routes themselves, so that no new one is left out."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from sqlalchemy import func, select

from app.api.hub.routing import caller as hub_caller
from app.auth import keys
from app.auth.scopes import Scope
from app.db.models import ApiKeyRow, CommitRow, DatasetRow, JobRow, RefRow, RepoRow, WebhookRow
from app.main import create_app
from tests.integration.api.conftest import Service, problem_of, settings_for

OPEN = {
    "/healthz",
    "/readyz",
    "/metrics",
    "/v1/schemas/{name}",
    "/v1/signing-key",
    "/login",
    "/logout",
    "/static/{version}/{name}",
}
"""What needs no key: probes, which carry none, the form of reports, the public key, and the login with its looks."""
TICKETED = ("/api/uploads/", "/xet/")
"""Their addresses hold a ticket that says what may be sent, and are worthless without it."""
REDIRECTED = re.compile(r"(/\{namespace\})?/\{name\}/(tree|commits?|blob)/")
"""The website's addresses: redirected to the model's page, which asks."""

Keys = dict[Scope | None, dict[str, str]]


def dependencies(dependant: Dependant) -> Iterator[Dependant]:
    for one in dependant.dependencies:
        yield one
        yield from dependencies(one)


def scope_of(route: APIRoute) -> Scope | None:
    """The scope that `require` was given for this route."""
    cells = [getattr(one.call, "__closure__", None) or () for one in dependencies(route.dependant)]
    scopes = [cell.cell_contents for closure in cells for cell in closure if isinstance(cell.cell_contents, Scope)]
    return max(scopes, key=list(Scope).index, default=None)


def all_routes(data: Path) -> list[APIRoute]:
    routers = [getattr(route, "original_router", None) for route in create_app(settings_for(data, None)).routes]
    return [route for router in routers if router for route in router.routes if isinstance(route, APIRoute)]


@pytest.fixture(scope="module")
def routes(tmp_path_factory: pytest.TempPathFactory) -> list[APIRoute]:
    return all_routes(tmp_path_factory.mktemp("routes"))


@pytest.fixture
def by_scope(service: Service) -> Iterator[Keys]:
    """Headers of nobody and of a key of each scope."""
    with service.sessions.begin() as session:
        made = {scope: keys.create(session, scope.value, scope) for scope in Scope}
    nobody: Keys = {None: {}}
    yield nobody | {scope: {"Authorization": f"Bearer {key}"} for scope, (_, key) in made.items()}
    with service.sessions.begin() as session:
        for row, _ in made.values():
            session.delete(session.merge(row))


def test_every_route_asks_who_is_there(routes: list[APIRoute]) -> None:
    asking = {route.path for route in routes if scope_of(route) is not None}
    of_hub = {route.path for route in routes if any(one.call is hub_caller for one in dependencies(route.dependant))}
    ticketed = {route.path for route in routes if route.path.startswith(TICKETED)}
    assert len(asking) > 15
    assert len(of_hub) > 15
    redirected = {route.path for route in routes if REDIRECTED.match(route.path)}
    assert {route.path for route in routes} - asking - of_hub - ticketed - redirected == OPEN


def test_a_route_answers_exactly_the_scopes_that_it_says(
    service: Service, routes: list[APIRoute], by_scope: Keys
) -> None:
    tried = 0
    for route in routes:
        needed = scope_of(route)
        if needed is None:
            continue
        path = re.sub(r"\{[^}]+\}", "nothing", route.path)
        for method in route.methods or ():
            for scope, headers in by_scope.items():
                service.http.cookies.clear()  # a login of the key before would stand for this caller
                answer = service.http.request(method, path, headers=headers)
                allowed = scope is not None and scope.includes(needed)
                if method == "HEAD":
                    assert (answer.status_code in {401, 403}) != allowed, (method, path, scope)
                elif not allowed:
                    code = "invalid_credentials" if scope is None else "insufficient_scope"
                    assert problem_of(answer, 401 if scope is None else 403)["code"] == code, (method, path, scope)
                else:
                    assert answer.status_code not in {401, 403}, (method, path, scope)
                assert answer.status_code < 500
                tried += 1
    assert tried >= 80


def test_nobody_and_a_reader_change_nothing_on_any_route(
    service: Service, routes: list[APIRoute], by_scope: Keys
) -> None:
    def rows() -> list[int]:
        with service.sessions() as session:
            tables = (JobRow, DatasetRow, RepoRow, CommitRow, RefRow, WebhookRow, ApiKeyRow)
            return [session.scalar(select(func.count()).select_from(table)) or 0 for table in tables]

    before = rows()
    for route in routes:
        path = re.sub(r"\{namespace\}", "demo", re.sub(r"\{name\}", "stories-24l", route.path))
        path = re.sub(r"\{(rev|revision|branch)[^}]*\}", "main", path)
        path = re.sub(r"\{[^}]+\}", "nothing", path)
        for method in (route.methods or set()) - {"GET", "HEAD"}:
            for scope in (None, Scope.READ):
                body = {"name": "made-up", "organization": "demo", "private": True, "tag": "t", "repo_id": "demo/x"}
                answer = service.http.request(method, path, headers=by_scope[scope], json=body)
                assert answer.status_code < 500, (method, path, scope, answer.text)
    assert rows() == before
