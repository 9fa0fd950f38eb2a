"""Every acceptance test runs over SQLite with the embedded broker, and over Postgres with Redis."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.service_process import ServiceProcesses, running_service

BACKENDS = [
    pytest.param("embedded"),
    pytest.param("servers", marks=[pytest.mark.postgres, pytest.mark.redis]),
]


@pytest.fixture(params=BACKENDS)
def environment(request: pytest.FixtureRequest) -> dict[str, str]:
    """Settings of one of the two ways to run the service."""
    if request.param == "embedded":
        return {}
    return {
        "STREAMLINE_DATABASE_URL": request.getfixturevalue("postgres_url"),
        "STREAMLINE_BROKER_URL": request.getfixturevalue("redis_url"),
    }


@pytest.fixture
def service(environment: dict[str, str], tmp_path: Path) -> Iterator[ServiceProcesses]:
    """An API and one worker as processes."""
    with running_service(tmp_path / "data", environment) as processes:
        yield processes
