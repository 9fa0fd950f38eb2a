"""A job is as visible as the repositories that it names: every route and page, every kind of key, both databases."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import delete, update

from app.db.models import JobRow
from app.hub import directory
from app.hub.publishing import StagedFile, commit_files
from app.hub.revisions import repo_named
from app.jobs import service
from app.jobs.states import State
from tests.integration.api.conftest import JOB, MODEL
from tests.integration.hub.keyed import GATED, PRIVATE, PUBLIC, Keyed

ROUTES = [
    ("GET", "/v1/jobs/{id}"),
    ("GET", "/v1/jobs/{id}/events"),
    ("GET", "/v1/jobs/{id}/report"),
    ("GET", "/v1/jobs/{id}/files"),
    ("GET", "/v1/jobs/{id}/files/report.json"),
    ("GET", "/jobs/{id}"),
    ("GET", "/compare?job={id}"),
    ("POST", "/v1/jobs/{id}/cancel"),
    ("POST", "/v1/jobs/{id}/retry"),
]
CLOSE, FAR = ("owner", "friend", "admin"), ("other", "reader")
NAMED = {
    "model": {"model": PRIVATE},
    "output": {"output": PRIVATE},
    "rival": {"rivals": [f"{PRIVATE}@{'0' * 40}"]},
    "open": {},
    "gated": {"model": GATED},
}


@pytest.fixture(scope="module")
def jobs(keyed: Keyed, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Ids of finished jobs that name a private repository as what the key says; `owner` has submitted them."""
    answer = keyed.ask("owner", "/v1/jobs", "POST", json=JOB)
    assert answer.status_code == 202, answer.text
    report = tmp_path_factory.mktemp("report") / "report.json"
    report.write_text(json.dumps({"metrics": {}}))
    spec = answer.json()["spec"]
    made = {}
    for kind, named in NAMED.items():
        made[kind] = make(keyed, spec, report, **named)  # type: ignore[arg-type]
    yield made
    with keyed.service.sessions.begin() as session:
        session.execute(delete(JobRow))


def make(
    keyed: Keyed, spec: dict[str, dict[str, object]], report: Path, *, model: str = MODEL, output: str = PUBLIC,
    rivals: list[str] | None = None,
) -> str:  # fmt: skip
    own = spec | {"model": {"repo": model, "revision": "0" * 40}, "output": spec["output"] | {"repo": output}}
    own["benchmark"] = own["benchmark"] | {"rivals": rivals or []}
    with keyed.service.sessions.begin() as session:
        row = service.create(session, own, owner=keyed.ids["owner"])
        session.execute(update(JobRow).where(JobRow.id == row.id).values(state=State.SUCCEEDED))
    keyed.service.parts.artefacts.write(row.id, {"report.json": report})
    return row.id


@pytest.mark.parametrize("kind", ["model", "output", "rival"])
@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_a_job_that_names_a_private_repository_is_missing_for_who_may_not_read_it(
    keyed: Keyed, jobs: dict[str, str], method: str, path: str, kind: str
) -> None:
    for who in FAR:
        hidden, missing = (keyed.ask(who, path.format(id=id_), method) for id_ in (jobs[kind], "f" * 32))
        assert hidden.status_code == missing.status_code
        assert hidden.status_code == (404 if method == "GET" or who == "other" else 403)
        assert hidden.json()["code"] == missing.json()["code"]
        assert PRIVATE not in hidden.text
    for who in CLOSE:
        status = keyed.ask(who, path.format(id=jobs[kind]), method).status_code
        assert status != 404


@pytest.mark.parametrize("who", [*CLOSE, *FAR])
def test_lists_and_pages_show_the_jobs_that_the_key_may_know_of(keyed: Keyed, jobs: dict[str, str], who: str) -> None:
    open_to_all = {jobs["open"], jobs["gated"]}
    expected = set(jobs.values()) if who in CLOSE else open_to_all
    listed = {job["id"] for job in keyed.ask(who, "/v1/jobs").json()["items"]}
    assert listed & set(jobs.values()) == expected
    by_model = keyed.ask(who, "/v1/jobs", params={"model": PRIVATE}).json()["items"]
    assert [job["id"] for job in by_model] == ([jobs["model"]] if who in CLOSE else [])
    for kind, job_id in jobs.items():
        by_id = keyed.ask(who, "/v1/jobs", params={"id_prefix": job_id[:12]}).json()["items"]
        assert [job["id"] for job in by_id] == ([job_id] if job_id in expected else []), kind
    for page in ("/", "/compare"):
        text = keyed.ask(who, page).text
        assert (PRIVATE in text) == (who in CLOSE)
        assert jobs["open"] in text
    found = keyed.ask(who, "/", params={"model": PRIVATE}).text
    assert (jobs["model"] in found) == ("<b>1</b>" in found) == (who in CLOSE), "nor do counts tell of others"
    if who == "other":
        assert keyed.ask(who, "/new", params={"from": jobs["model"]}).status_code == 404


def test_a_grant_counts_at_once_and_so_does_closing(keyed: Keyed, jobs: dict[str, str]) -> None:
    def sees(who: str, kind: str) -> bool:
        return keyed.ask(who, f"/v1/jobs/{jobs[kind]}").status_code == 200

    with keyed.service.sessions.begin() as session:
        directory.grant(session, repo_named(session, PRIVATE), directory.keys_called(session, "reader"))
    assert sees("reader", "model")
    with keyed.service.sessions.begin() as session:
        directory.withdraw(session, repo_named(session, PRIVATE), directory.keys_called(session, "reader"))
        directory.configure(session, repo_named(session, PUBLIC), {"private": True})
    assert not sees("reader", "model")
    assert not sees("other", "open")
    assert sees("owner", "open")
    with keyed.service.sessions.begin() as session:
        directory.configure(session, repo_named(session, PUBLIC), {"private": False})
    assert sees("other", "open")


@pytest.mark.parametrize("closed_later", [False, True], ids=["private-from-the-start", "closed-later"])
@pytest.mark.parametrize("leaving", ["deleted", "renamed"])
@pytest.mark.parametrize("kind", ["model", "output", "rival"])
def test_a_private_repository_whose_name_another_takes_opens_no_job(
    keyed: Keyed, tmp_path: Path, kind: str, leaving: str, closed_later: bool
) -> None:
    blob = keyed.service.parts.blobs.put_bytes(b"{}")
    files = [StagedFile("config.json", blob.size, blob.sha256, blob.git_oid)]
    name, moved, report = "team/short-lived", "team/moved", tmp_path / "report.json"
    report.write_text("{}")
    with keyed.service.sessions.begin() as session:
        commit_files(session, name, files, "m", private=not closed_later, owner=keyed.ids["owner"])
    spec = keyed.ask("owner", "/v1/jobs", "POST", json=JOB).json()["spec"]
    named = {"model": {"model": name}, "output": {"output": name}, "rival": {"rivals": [f"{name}@{'0' * 40}"]}}[kind]
    job_id = make(keyed, spec, report, **named)  # type: ignore[arg-type]
    if closed_later:
        with keyed.service.sessions.begin() as session:
            directory.configure(session, repo_named(session, name), {"private": True})

    def only_its_owner_sees_it() -> bool:
        statuses = [keyed.ask(who, f"/v1/jobs/{job_id}").status_code for who in ("owner", "other")]
        return statuses == [200, 404]

    assert only_its_owner_sees_it()
    with keyed.service.sessions.begin() as session:
        repo = repo_named(session, name)
        if leaving == "deleted":
            directory.delete_repo(session, repo)
        else:
            assert directory.rename_repo(session, repo, moved)
    assert only_its_owner_sees_it()
    with keyed.service.sessions.begin() as session:
        commit_files(session, name, files, "another", owner=keyed.ids["other"])
    assert only_its_owner_sees_it()
    with keyed.service.sessions.begin() as session:
        for left in [name] + [moved] * (leaving == "renamed"):
            directory.delete_repo(session, repo_named(session, left))
        session.execute(delete(JobRow).where(JobRow.id == job_id))
