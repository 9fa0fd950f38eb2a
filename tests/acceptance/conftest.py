"""Every acceptance test runs over SQLite with the embedded broker, and over Postgres with Redis."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import empty_redis, postgres_database
from tests.service_process import ServiceProcesses, running_service

# Each way is a group of its own: where pytest runs in two processes, one of them takes the one and one the other.
BACKENDS = [
    pytest.param("embedded", marks=pytest.mark.xdist_group("embedded")),
    pytest.param("servers", marks=[pytest.mark.postgres, pytest.mark.redis, pytest.mark.xdist_group("servers")]),
]


@contextmanager
def environment_of(backend: str) -> Iterator[dict[str, str]]:
    """Settings of one of the two ways to run the service."""
    if backend == "embedded":
        yield {}
        return
    with postgres_database() as database:
        yield {"STREAMLINE_DATABASE_URL": database, "STREAMLINE_BROKER_URL": empty_redis()}


@pytest.fixture(params=BACKENDS)
def environment(request: pytest.FixtureRequest) -> Iterator[dict[str, str]]:
    """Settings for a service that a test starts itself."""
    with environment_of(request.param) as found:
        yield found


@pytest.fixture
def service(environment: dict[str, str], tmp_path: Path) -> Iterator[ServiceProcesses]:
    """An API and one worker as processes, for a test that does things to them."""
    with running_service(tmp_path / "data", environment) as processes:
        yield processes


@pytest.fixture(scope="module", params=BACKENDS)
def shared_service(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServiceProcesses]:
    """An API and one worker as processes, for tests that only send requests."""
    data = tmp_path_factory.mktemp("service") / "data"
    with environment_of(request.param) as found, running_service(data, found) as processes:
        yield processes
