"""`streamline keys` from another machine: with a URL and a key of scope admin it goes over HTTP, else it does not."""

import json
from pathlib import Path

import pytest

from app.auth import keys
from app.auth.scopes import Scope
from app.cli import exits
from app.cli.application import run
from app.db.migrate import migrate
from tests.integration.api import webhooked
from tests.integration.api.conftest import Service
from tests.webhook_receiver import Receiver

SETTINGS = webhooked.SETTINGS


@pytest.fixture
def admin(running_service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    """Id and key of an administrator, whose terminal is elsewhere and knows the service's address."""
    service = webhooked.emptied(running_service)
    with service.sessions.begin() as session:
        row, key = keys.create(session, "Ada", Scope.ADMIN)
    monkeypatch.chdir(tmp_path)
    for name in ("STREAMLINE_DATA_DIR", "STREAMLINE_DATABASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("STREAMLINE_URL", service.url)
    monkeypatch.setenv("STREAMLINE_API_KEY", key)
    return row.id, key


def test_an_administrator_makes_lists_and_revokes_keys_over_http(
    running_service: Service, admin: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    limits = ["--max-queued-jobs", "3", "--max-requests-per-minute", "60"]
    assert run(["keys", "create", "nightly", "--scope", "read", "--days", "2", *limits]) == exits.PASSED
    made = capsys.readouterr()
    key = made.out.strip()
    assert made.err == f"It is a key of the service at {running_service.url}.\n"
    bearer = {"Authorization": f"Bearer {key}"}
    assert running_service.http.get("/v1/jobs", headers=bearer).status_code == 200
    assert run(["keys", "list"]) == exits.PASSED
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [f"hf_{admin[0]}...", f"hf_{key[3:11]}..."], "the oldest first"
    assert "UTC, 3 jobs in the queue, 60 requests a minute)" in lines[1]
    assert run(["keys", "revoke", lines[1].split()[0], "--json"]) == exits.PASSED
    assert json.loads(capsys.readouterr().out) == {"id": key[3:11], "revoked": True}
    assert running_service.http.get("/v1/jobs", headers=bearer).status_code == 401
    assert list(tmp_path.iterdir()) == [], "nothing is founded here"


def test_both_ways_print_the_same(
    running_service: Service,
    admin: tuple[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with running_service.sessions.begin() as session:
        keys.create(session, "ci", Scope.SUBMIT, valid_days=1.5)
        keys.revoke(session, keys.create(session, "old", Scope.READ)[0].id)
    printed = []
    for _ in range(2):
        for options in ([], ["--json"]):
            assert run(["keys", "list", *options]) == exits.PASSED
            printed.append(capsys.readouterr().out)
        monkeypatch.setenv("STREAMLINE_DATABASE_URL", running_service.parts.settings.database)
        monkeypatch.setenv("STREAMLINE_URL", "http://127.0.0.1:9")  # where nobody is to be asked now
    assert printed[:2] == printed[2:]


@pytest.mark.parametrize("told_by", ["option", "environment", "directory"])
def test_who_names_a_data_directory_or_is_where_a_service_has_run_means_that_one(
    admin: tuple[str, str],
    tmp_path: Path,
    told_by: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    own = tmp_path / ("streamline-data" if told_by == "directory" else "own")
    own.mkdir()
    migrate(f"sqlite:///{own / 'streamline.db'}")
    if told_by == "environment":
        monkeypatch.setenv("STREAMLINE_DATA_DIR", str(own))
    assert run(["keys", "create", "ci", *(["--data", str(own)] if told_by == "option" else [])]) == exits.PASSED
    assert str(own) in capsys.readouterr().err
    monkeypatch.chdir("/")
    monkeypatch.delenv("STREAMLINE_DATA_DIR", raising=False)
    assert run(["keys", "list", "--json"]) == exits.PASSED
    assert [key["name"] for key in json.loads(capsys.readouterr().out)] == ["Ada"], "and not the other service"


@pytest.mark.parametrize(
    ("missing", "there"), [("STREAMLINE_API_KEY", "STREAMLINE_URL"), ("STREAMLINE_URL", "STREAMLINE_API_KEY")]
)
def test_an_address_without_a_key_and_a_key_without_an_address_are_told_what_is_missing(
    missing: str,
    there: str,
    admin: tuple[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv(missing)
    assert run(["keys", "list"]) == exits.BAD_USAGE
    assert f"or set {missing}, which is missing beside {there}, to ask one over HTTP." in capsys.readouterr().err
    monkeypatch.delenv(there)
    assert run(["keys", "list"]) == exits.BAD_USAGE
    assert "or set STREAMLINE_URL and STREAMLINE_API_KEY to ask one over HTTP." in capsys.readouterr().err


def test_a_key_that_is_not_there_is_told_where_the_service_runs_too(
    running_service: Service,
    admin: tuple[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("STREAMLINE_DATABASE_URL", running_service.parts.settings.database)
    for command in (["audit", "--key", "absent"], ["revoke", "absent"]):
        assert run(["keys", *command]) == exits.BAD_USAGE
        assert "There is no key absent; `streamline keys list` shows them." in capsys.readouterr().err
    assert run(["keys", "audit", "--key", f"hf_{admin[0]}..."]) == exits.PASSED


def test_a_scope_that_is_mistyped_is_told_which_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["keys", "create", "ci", "--scope", "amdin"]) == exits.BAD_USAGE
    said = "streamline: Invalid value for '--scope': 'amdin' is not one of 'read', 'submit', 'admin'.\n"
    assert capsys.readouterr().err == said


def test_what_cannot_be_done_over_http_is_said(
    running_service: Service,
    admin: tuple[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def refused(*arguments: str, code: int = exits.BAD_USAGE) -> str:
        assert run(["keys", *arguments]) == code
        return capsys.readouterr().err

    assert "where the service runs" in refused("audit")
    assert "There is no key absent; `streamline keys list`" in refused("revoke", "absent")
    assert "the key that the request came with" in refused("revoke", admin[0])
    assert "needs a name" in refused("create", " ")
    with running_service.sessions.begin() as session:
        _, key = keys.create(session, "reader", Scope.READ)
    monkeypatch.setenv("STREAMLINE_API_KEY", key)
    assert "scope admin" in refused("list", code=exits.NOT_ALLOWED)


def test_with_the_first_key_it_is_said_how_many_webhooks_it_mutes(
    running_service: Service, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    service = webhooked.emptied(running_service)
    monkeypatch.setenv("STREAMLINE_DATABASE_URL", service.parts.settings.database)
    with Receiver().listening() as receiver:
        for _ in range(2):
            webhooked.add(service, receiver)
        over = webhooked.ended_job(service)
        webhooked.add(service, receiver, path=f"/v1/jobs/{over}/webhooks")  # has nothing to be told of any more
    assert run(["keys", "create", "Ada", "--scope", "admin"]) == exits.PASSED
    made = capsys.readouterr()
    assert made.err == (
        "2 webhooks that were registered without a key are told nothing any more; register them again with a key, by "
        "`streamline webhooks add`.\n"
    )
    monkeypatch.setenv("STREAMLINE_URL", service.url)
    monkeypatch.setenv("STREAMLINE_API_KEY", made.out.strip())
    assert run(["webhooks", "list"]) == exits.PASSED
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert all("  muted (registered before there were keys)  " in line for line in lines)
    assert run(["keys", "create", "ci"]) == exits.PASSED
    assert capsys.readouterr().err == "", "it is the first key alone that does so"
