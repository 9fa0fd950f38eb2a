"""What every test may ask for, and the rule about real services: what is missing is said loudly, and CI allows none."""

import gc
import os
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url

from app.cli.pipeline import PIPELINE_VARIABLES
from tests.s3_server import CREDENTIALS, s3_server

REPOSITORY = Path(__file__).resolve().parents[1]
DATABASE_URL = os.environ.get("STREAMLINE_TEST_DATABASE_URL", "postgresql+psycopg://postgres@127.0.0.1:5432/postgres")
BROKER_URL = os.environ.get("STREAMLINE_TEST_BROKER_URL", "redis://127.0.0.1:6379/9")
if re.fullmatch(r"gw\d+", worker := os.environ.get("PYTEST_XDIST_WORKER", "")):
    # Tests empty their Redis database: each of pytest's processes has one of its own, counted from the one given.
    server, _, number = BROKER_URL.rpartition("/")
    BROKER_URL = f"{server}/{(int(number) + int(worker[2:])) % 16}"
REQUIRE_ALL = os.environ.get("STREAMLINE_TEST_REQUIRE_ALL") == "1"


# Where a pipeline runs the tests, commands would take its names for their own and attach to each other's jobs.
for _name in PIPELINE_VARIABLES:
    os.environ.pop(_name, None)


# The same examples at every landing, and as long as the machine needs for them: a change is judged by what it changed.
# `make fuzz` looks for new examples (--hypothesis-profile explore); one that fails becomes an @example.
_UNTIMED: dict[str, Any] = {"deadline": None, "suppress_health_check": [hypothesis.HealthCheck.too_slow]}
hypothesis.settings.register_profile("landing", derandomize=True, database=None, **_UNTIMED)
hypothesis.settings.register_profile("explore", max_examples=1000, print_blob=True, **_UNTIMED)
hypothesis.settings.load_profile("landing")


def _postgres_answers() -> bool:
    try:
        engine = create_engine(DATABASE_URL, connect_args={"connect_timeout": 2})
        with engine.connect() as connection:
            connection.execute(text("SELECT 1"))
        engine.dispose()
    except Exception:
        return False
    return True


def _redis_answers() -> bool:
    import redis

    try:
        with redis.Redis.from_url(BROKER_URL, socket_connect_timeout=2) as client:
            return bool(client.ping())
    except (redis.RedisError, OSError):
        return False


CHROMIUM = Path("/usr/bin/chromium")
SERVICES = {"PostgreSQL": _postgres_answers, "Redis": _redis_answers, "Chromium": CHROMIUM.is_file}
MISSING = [name for name, answers in SERVICES.items() if not answers()]


def pytest_report_header() -> list[str]:
    if not MISSING:
        return [f"real services: {', '.join(SERVICES)} are there"]
    return [f"!!! {name} was not found: every test that needs it is skipped !!!" for name in MISSING]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for report in (report for reports in terminalreporter.stats.values() for report in reports):
        for name, line in getattr(report, "user_properties", ()):
            if name == "promise" and report.when == "call":
                terminalreporter.write_line(f"{report.outcome}: {line}")
    for name in MISSING:
        terminalreporter.write_line(f"!!! {name} was not found: what needs it was NOT tested !!!", red=True, bold=True)


def pytest_collection_finish() -> None:
    # What is imported by now stays: a collector that looks at a million such objects again and again takes a twentieth
    # of the time of all tests.
    gc.collect()
    gc.freeze()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    needs = {"postgres": "PostgreSQL", "redis": "Redis", "chromium": "Chromium"}
    for item in items:
        for marker, service in needs.items():
            if item.get_closest_marker(marker) and service in MISSING:
                item.add_marker(pytest.mark.skip(reason=f"{service} does not answer"))


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if REQUIRE_ALL and exitstatus == 0 and reporter is not None and reporter.stats.get("skipped"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        reporter.write_line("A test was skipped, and STREAMLINE_TEST_REQUIRE_ALL=1 allows none.", red=True)


@pytest.fixture(scope="session")
def stories_model() -> Path:
    """The bundled model: 24 layers, hidden 128, really trained."""
    return REPOSITORY / "app" / "bundled" / "stories-24l"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real text and question sets that lie beside the checkout."""
    directory = Path(os.environ.get("STREAMLINE_TEST_DATA", REPOSITORY.parent / "shared" / "data"))
    if not directory.is_dir():
        pytest.skip(f"no data in {directory}; set STREAMLINE_TEST_DATA")
    return directory


@contextmanager
def postgres_database() -> Iterator[str]:
    """The URL of a database that is there as long as the block; skips the test where there is no server."""
    if "PostgreSQL" in MISSING:
        pytest.skip("PostgreSQL does not answer")
    name = f"streamline_test_{uuid.uuid4().hex[:12]}"
    server = create_engine(DATABASE_URL, isolation_level="AUTOCOMMIT")
    with server.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
        # Nobody pulls this server's plug; what a crash may cost is tested with servers of its own (tests/chaos).
        connection.execute(text(f"ALTER DATABASE {name} SET synchronous_commit TO off"))
    yield make_url(DATABASE_URL).set(database=name).render_as_string(hide_password=False)
    with server.connect() as connection:
        connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    server.dispose()


@pytest.fixture
def postgres_url() -> Iterator[str]:
    """The URL of a database of this test's own."""
    with postgres_database() as url:
        yield url


def empty_redis() -> str:
    """The URL of an emptied Redis database; skips the test where there is no server."""
    if "Redis" in MISSING:
        pytest.skip("Redis does not answer")
    import redis

    with redis.Redis.from_url(BROKER_URL) as client:
        client.flushdb()
    return BROKER_URL


@pytest.fixture
def redis_url() -> str:
    """The URL of an empty Redis database."""
    return empty_redis()


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """The URL of a real S3 server, with credentials for it in the environment."""
    with pytest.MonkeyPatch.context() as patch, s3_server() as endpoint:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patch.delenv(name)
        for name, value in CREDENTIALS.items():
            patch.setenv(name, value)
        yield endpoint
