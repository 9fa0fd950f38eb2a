"""A job is found by the beginning of its id: by every command that takes one, and by who lists jobs over HTTP."""

from types import SimpleNamespace

import httpx
import pytest
from sqlalchemy import update

from app.cli import exits
from app.cli.application import run
from app.db.models import JobRow
from tests.integration.api.conftest import Service, problem_of
from tests.unit.app.report.reports import full

FIRST, SECOND, OTHER = "a1b2c3" + "0" * 26, "a1b2c4" + "0" * 26, "ffff" + "0" * 28


@pytest.fixture
def asked(service: Service, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths that commands have asked for; there are three jobs, two of them with ids that begin alike."""
    with monkeypatch.context() as patched:
        ids = (SimpleNamespace(hex=job_id) for job_id in (FIRST, SECOND, OTHER))
        patched.setattr("app.jobs.service.uuid", SimpleNamespace(uuid4=lambda: next(ids)))
        assert [service.submit()["id"] for _ in range(3)] == [FIRST, SECOND, OTHER]
    monkeypatch.setenv("STREAMLINE_URL", service.url)
    paths: list[str] = []
    send = httpx.Client.send

    def noted(client: httpx.Client, request: httpx.Request, **more: object) -> httpx.Response:
        paths.append(request.url.raw_path.decode())
        return send(client, request, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(httpx.Client, "send", noted)
    return paths


def test_the_list_of_jobs_finds_them_by_the_beginning_of_their_ids(service: Service, asked: list[str]) -> None:
    def found(prefix: str) -> set[str]:
        answer = service.http.get("/v1/jobs", params={"id_prefix": prefix})
        return {job["id"] for job in answer.json()["items"]}

    assert found("a1b2c") == {FIRST, SECOND}
    assert found("a1b2c3") == found(FIRST) == {FIRST}
    assert found("f") == {OTHER}
    assert found("a1b2c5") == set()
    for made_up in ("", "A1", "a1b2%", "_", "0" * 33):
        refused = service.http.get("/v1/jobs", params={"id_prefix": made_up})
        assert problem_of(refused, 422)["parameter"] == "id_prefix"


@pytest.mark.parametrize(
    "command",
    [
        ["status"], ["events"], ["wait", "--timeout", "0"], ["cancel"], ["retry"], ["report"],
        ["webhooks", "add", "https://1.1.1.1/hook", "--job"],
    ],
    ids=lambda command: command[0],
)  # fmt: skip
def test_every_command_takes_the_beginning_of_an_id_and_refuses_one_that_several_jobs_have(
    asked: list[str], command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    run([*command, "A1B2C3"])
    assert f"/v1/jobs/{FIRST}" in "".join(asked), "its words may be refused, but it is about that job"
    capsys.readouterr()
    asked.clear()
    assert run([*command, "a1b2"]) == exits.BAD_USAGE
    said = capsys.readouterr().err
    assert "'a1b2'" in said
    assert FIRST in said
    assert SECOND in said
    assert OTHER not in said
    assert run([*command, "beef"]) == exits.BAD_USAGE
    assert "'beef'; `streamline status` lists" in capsys.readouterr().err
    assert run([*command, "fff"]) == exits.BAD_USAGE, "although only one begins so"
    assert "too little of a job's id" in capsys.readouterr().err
    assert [path for path in asked if "id_prefix" not in path] == [], "nothing is done to any job"


def test_a_whole_id_costs_no_extra_request(asked: list[str]) -> None:
    assert run(["cancel", OTHER]) == exits.PASSED
    assert run(["status", f" {OTHER.upper()} "]) == exits.PASSED
    assert asked[:2] == [f"/v1/jobs/{OTHER}/cancel", f"/v1/jobs/{OTHER}"]


def test_jobs_are_compared_by_the_beginnings_that_the_comparison_itself_prints(
    service: Service, asked: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    report = full()
    with service.sessions.begin() as session:
        values = {"state": "succeeded", "verdict": "pass"}
        result = {"repo": "demo/out", "revision": "0" * 40, "removed_layers": [9], "metrics": report["metrics"]}
        session.execute(update(JobRow).values(**values, result=result))
    assert run(["compare", FIRST, OTHER]) == exits.PASSED
    printed = capsys.readouterr().out
    assert FIRST[:8] in printed
    assert run(["compare", FIRST[:8], OTHER[:8]]) == exits.PASSED
    assert capsys.readouterr().out == printed
    assert run(["compare", FIRST[:8], FIRST[:9]]) == exits.BAD_USAGE, "they are the same job"
