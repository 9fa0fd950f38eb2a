"""Every acceptance test runs over SQLite with the embedded broker, and over Postgres with Redis."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.backends import BACKENDS, environment_of
from tests.service_process import ServiceProcesses, running_service


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
