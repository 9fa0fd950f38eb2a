"""A fault of ours, of the database or of the framework is a problem document that tells nothing about the inside."""

import pytest
import structlog
from fastapi import APIRouter, FastAPI
from fastapi.testclient import TestClient
from sqlalchemy.exc import OperationalError
from starlette.exceptions import HTTPException

from app.api.body_limit import BodyLimitMiddleware
from app.api.problems import install_problems
from app.api.request_log import RequestLogMiddleware

structlog.configure(wrapper_class=structlog.make_filtering_bound_logger("critical"))


@pytest.fixture
def client() -> TestClient:
    router = APIRouter()

    @router.get("/fault")
    def fault() -> None:
        secret = "hunter2"
        raise RuntimeError(f"the password is {secret}")

    @router.get("/database")
    def database() -> None:
        raise OperationalError("SELECT secret", {}, Exception("connection to db.internal refused"))

    @router.get("/mistake")
    def mistake() -> None:
        raise OperationalError("SELECT secret", {}, Exception("no such column: secret"))

    @router.get("/teapot")
    def teapot() -> None:
        raise HTTPException(418)

    app = FastAPI()
    install_problems(app, [router])
    app.include_router(router)
    app.add_middleware(BodyLimitMiddleware, max_bytes=10, by_path={})
    app.add_middleware(RequestLogMiddleware)
    return TestClient(app)


def test_a_fault_says_nothing_but_its_request_id(client: TestClient) -> None:
    answer = client.get("/fault")
    assert (answer.status_code, answer.headers["content-type"]) == (500, "application/problem+json")
    assert "hunter2" not in answer.text
    assert "RuntimeError" not in answer.text
    assert answer.json()["code"] == "internal_error"
    assert answer.json()["request_id"] == answer.headers["x-request-id"]


def test_a_database_that_is_away_is_worth_another_try(client: TestClient) -> None:
    answer = client.get("/database")
    assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
    assert answer.headers["retry-after"].isdigit()
    assert "db.internal" not in answer.text


def test_a_statement_that_names_what_is_not_there_is_no_database_that_is_away(client: TestClient) -> None:
    answer = client.get("/mistake")
    assert (answer.status_code, answer.json()["code"]) == (500, "internal_error")
    assert "secret" not in answer.text


def test_the_frameworks_other_refusals_are_problems_too(client: TestClient) -> None:
    answer = client.get("/teapot")
    assert (answer.status_code, answer.headers["content-type"]) == (418, "application/problem+json")


def test_the_limit_holds_where_nobody_reads_the_body(client: TestClient) -> None:
    assert client.post("/nowhere", content=b"x" * 11).status_code == 413
    assert client.post("/nowhere", content=b"x" * 10).status_code == 404
