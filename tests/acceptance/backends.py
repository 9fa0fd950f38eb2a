"""The two ways to run the service: SQLite with the embedded broker, and Postgres with Redis.

Most tests run over both. A test about what is the same code in both names one of them.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.conftest import empty_redis, postgres_database

EMBEDDED = pytest.param("embedded")
SERVERS = pytest.param("servers", marks=[pytest.mark.postgres, pytest.mark.redis])
BACKENDS = [EMBEDDED, SERVERS]


def backend(which: object, fixture: str = "environment") -> pytest.MarkDecorator:
    """Run a test over one backend only; `fixture` is the one by which the test gets it."""
    return pytest.mark.parametrize(fixture, [which], indirect=True)


@contextmanager
def environment_of(backend: str) -> Iterator[dict[str, str]]:
    """Settings of one of the two."""
    if backend == "embedded":
        yield {}
        return
    with postgres_database() as database:
        yield {"STREAMLINE_DATABASE_URL": database, "STREAMLINE_BROKER_URL": empty_redis()}
