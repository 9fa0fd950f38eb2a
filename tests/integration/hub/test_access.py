"""Who sees what: the real application with API keys of every scope, over both databases."""

import base64
import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from huggingface_hub import snapshot_download
from huggingface_hub.errors import RepositoryNotFoundError
from sqlalchemy import select

from app.db.models import AuditRow
from app.hub import directory
from app.hub.errors import NotAllowed
from app.hub.publishing import StagedFile, commit_files
from app.hub.revisions import repo_named
from tests.integration.api.conftest import JOB, MODEL, problem_of
from tests.integration.hub.keyed import GATED, PRIVATE, PUBLIC, Keyed
from worker.publication import check_access

PATHS = [
    "/api/models/{repo}",
    "/api/models/{repo}/revision/main",
    "/api/models/{repo}/tree/main",
    "/api/models/{repo}/refs",
    "/api/models/{repo}/commits/main",
    "/api/models/{repo}/auth-check",
    "/api/models/{repo}/auth-check/write",
    "/{repo}/resolve/main/config.json",
]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("who", ["other", "reader", None])
def test_a_private_repository_answers_exactly_as_a_missing_one(keyed: Keyed, who: str | None, path: str) -> None:
    for method in ("GET", "HEAD") if "resolve" in path else ("GET",):
        hidden, missing = (keyed.ask(who, path.format(repo=repo), method) for repo in (PRIVATE, "team/absent"))
        assert hidden.status_code == missing.status_code == (404 if who else 401)
        assert hidden.headers["X-Error-Code"] == "RepoNotFound"
        varying = {"date", "x-request-id", "x-error-message", "content-length"}
        assert {k: v for k, v in hidden.headers.items() if k not in varying} == {
            k: v for k, v in missing.headers.items() if k not in varying
        }
        assert hidden.text.replace(PRIVATE, "team/absent") == missing.text


CHANGES: list[tuple[str, str, Any]] = [
    ("POST", "/api/models/{repo}/preupload/main", {"files": []}),
    ("POST", "/api/models/{repo}/paths-info/main", {"paths": ["config.json"]}),
    ("POST", "/api/models/{repo}/commit/main", {"key": "header", "value": {"summary": "m"}}),
    ("POST", "/api/models/{repo}/branch/new", {}),
    ("DELETE", "/api/models/{repo}/branch/new", None),
    ("POST", "/api/models/{repo}/tag/main", {"tag": "t"}),
    ("DELETE", "/api/models/{repo}/tag/t", None),
    ("PUT", "/api/models/{repo}/settings", {"private": False}),
    ("POST", "/{repo}.git/info/lfs/objects/batch", {"operation": "upload", "objects": []}),
    ("GET", "/api/models/{repo}/xet-write-token/main", None),
    ("POST", "/api/models/{repo}/user-access-request/grant", {"user": "other"}),
    ("POST", "/api/models/{repo}/user-access-request/handle", {"user": "other", "status": "accepted"}),
    ("GET", "/api/models/{repo}/user-access-request/accepted", None),
    ("DELETE", "/api/repos/delete", {"name": "{repo}"}),
    ("POST", "/api/repos/move", {"fromRepo": "{repo}", "toRepo": "team/moved"}),
]


@pytest.mark.parametrize(("method", "path", "body"), CHANGES, ids=[f"{one[0]} {one[1]}" for one in CHANGES])
def test_a_private_repository_is_changed_by_others_exactly_as_a_missing_one(
    keyed: Keyed, method: str, path: str, body: Any
) -> None:
    for who in ("other", "reader", None):
        hidden, missing = (
            keyed.ask(who, path.format(repo=repo), method, json=json.loads(json.dumps(body).replace("{repo}", repo)))
            for repo in (PRIVATE, "team/absent")
        )
        assert hidden.status_code == missing.status_code
        assert hidden.headers.get("X-Error-Code") == missing.headers.get("X-Error-Code") == "RepoNotFound"
        assert hidden.text.replace(PRIVATE, "team/absent") == missing.text


def test_no_answer_counts_the_repositories_of_others(keyed: Keyed) -> None:
    query = {"sort": "lastModified", "limit": 1}
    page = keyed.ask("other", "/api/models", params=query)
    cursor = httpx.URL(page.links["next"]["url"]).params["cursor"]
    with keyed.service.sessions() as session:
        numbers = {repo.id for repo in directory.page_of_repos(session, visible_to=None, limit=100)}
    assert not numbers & set(json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))))
    made = keyed.ask("other", "/api/repos/create", "POST", json={"name": "counted", "organization": "other"}).json()
    assert made["id"] == keyed.ask("other", "/api/models/other/counted").json()["_id"]
    assert int(made["id"], 16) > 1 << 32
    assert keyed.ask("other", "/api/repos/delete", "DELETE", json={"name": "other/counted"}).status_code == 200


@pytest.mark.parametrize("who", ["owner", "friend", "admin"])
def test_who_is_close_to_a_private_repository_reads_it(keyed: Keyed, who: str) -> None:
    for path in PATHS:
        if not path.endswith("write"):
            assert keyed.ask(who, path.format(repo=PRIVATE)).status_code == 200
    assert keyed.ask(who, f"/api/models/{PRIVATE}").json()["private"] is True


def test_lists_hold_what_the_key_may_know_of(keyed: Keyed) -> None:
    everything = [MODEL, GATED, PUBLIC, PRIVATE]
    for who in ("owner", "friend", "admin"):
        assert keyed.listed(who) == everything
    for who in ("other", "reader"):
        assert keyed.listed(who) == [MODEL, GATED, PUBLIC]
        for query in ({"search": "secret"}, {"sort": "lastModified", "search": "secret"}, {"filter": "tiny"}):
            assert PRIVATE not in keyed.listed(who, **query)
        page = keyed.ask(who, "/models").text
        assert PUBLIC in page
        assert PRIVATE not in page
    assert keyed.listed(None) == []


@pytest.mark.parametrize("who", ["other", "reader"])
def test_a_gated_repository_shows_its_info_and_no_file(keyed: Keyed, who: str) -> None:
    info = keyed.ask(who, f"/api/models/{GATED}")
    assert info.status_code == 200
    assert info.json()["gated"] == "manual"
    for path in ("/api/models/{repo}/tree/main", "/{repo}/resolve/main/config.json", "/api/models/{repo}/auth-check"):
        refused = keyed.ask(who, path.format(repo=GATED))
        assert (refused.status_code, refused.headers["X-Error-Code"]) == (403, "GatedRepo")
    for close in ("owner", "friend", "admin"):
        assert keyed.ask(close, f"/{GATED}/resolve/main/config.json").content == b"{}"


def test_writing_needs_the_scope(keyed: Keyed) -> None:
    assert keyed.ask("other", f"/api/models/{PUBLIC}/auth-check/write").status_code == 200
    refused = keyed.ask("reader", f"/api/models/{PUBLIC}/auth-check/write")
    assert refused.status_code == 403
    assert "scope submit" in refused.headers["X-Error-Message"]
    roles = {who: keyed.ask(who, "/api/whoami-v2").json()["auth"]["accessToken"]["role"] for who in ("reader", "other")}
    assert roles == {"reader": "read", "other": "write"}
    assert keyed.ask(None, "/api/whoami-v2").status_code == 401


def test_keys_have_the_form_that_llama_cpp_sends(keyed: Keyed) -> None:
    for key in keyed.keys.values():
        assert key.startswith("hf_")
        assert len(key) >= len("hf_") + 34
        assert key[3:].isalnum()


def test_a_job_reads_and_writes_only_what_its_key_may(keyed: Keyed) -> None:
    def refused(who: str, **changes: Any) -> dict[str, Any]:
        return problem_of(keyed.ask(who, "/v1/jobs", "POST", json=JOB | changes), 422)

    hidden = refused("other", model={"repo": PRIVATE})
    missing = refused("other", model={"repo": "team/absent"})
    assert hidden["code"] == "unknown_model"
    assert hidden["detail"].replace(PRIVATE, "team/absent") == missing["detail"]
    assert refused("other", model={"repo": GATED})["code"] == "model_not_allowed"
    taken = refused("other", output={"repo": PRIVATE})
    assert (taken["code"], taken["pointer"]) == ("model_not_allowed", "/output/repo")


def test_access_is_asked_again_when_a_job_publishes(keyed: Keyed) -> None:
    with keyed.service.sessions() as session:
        secret, asking = repo_named(session, PRIVATE), repo_named(session, GATED)
        owner, other = keyed.ids["owner"], keyed.ids["other"]
        check_access(session, owner, secret, PRIVATE)
        check_access(session, other, None, "team/new")
        with pytest.raises(NotAllowed, match="may not publish"):
            check_access(session, other, None, PRIVATE)  # somebody took the name while the job ran
        for source in (secret, asking):
            with pytest.raises(NotAllowed, match="open to more"):
                check_access(session, owner, source, PUBLIC)


def test_what_comes_out_of_a_gated_model_is_gated(keyed: Keyed) -> None:
    blob = keyed.service.parts.blobs.put_bytes(b"x")
    with keyed.service.sessions.begin() as session:
        files = [StagedFile("a.bin", blob.size, blob.sha256, blob.git_oid)]
        commit_files(session, "team/from-gated", files, "m", gated="manual", owner=keyed.ids["owner"])
    assert keyed.ask("other", "/team/from-gated/resolve/main/a.bin").status_code == 403
    name = {"name": "from-gated", "organization": "team", "type": "model"}
    assert keyed.ask("owner", "/api/repos/delete", "DELETE", json=name).is_success


def test_lists_are_filtered_by_tag_and_ordered_by_time_page_by_page(keyed: Keyed) -> None:
    assert keyed.listed("owner", filter="tiny") == [GATED, PUBLIC, PRIVATE]
    assert keyed.listed("owner", filter="tiny,absent") == keyed.listed("owner", filter="\0") == []
    assert keyed.listed("owner", gated="true") == [GATED]
    names: list[str] = []
    url: str | None = "/api/models?sort=createdAt&limit=1&filter=tiny"
    while url:
        answer = keyed.ask("owner", url)
        assert answer.status_code == 200, answer.text
        names += [model["id"] for model in answer.json()]
        url = answer.links["next"]["url"] if "next" in answer.links else None
    assert sorted(names) == [GATED, PUBLIC, PRIVATE]
    assert names == keyed.listed("owner", sort="createdAt", filter="tiny")
    wrong = keyed.ask("owner", "/api/models?sort=size")
    assert wrong.status_code == 400
    assert "lastModified" in wrong.json()["error"]


def test_the_card_is_in_the_model_info(keyed: Keyed) -> None:
    info = keyed.ask("reader", f"/api/models/{PUBLIC}?securityStatus=true").json()
    assert info["cardData"] == {"license": "mit", "tags": ["tiny"]}
    assert {"license:mit", "tiny", "transformers"} <= set(info["tags"])
    assert info["securityRepoStatus"] == {"scansDone": False, "filesWithIssues": []}


def test_paths_are_asked_for_by_form_and_by_json(keyed: Keyed) -> None:
    where = f"/api/models/{PUBLIC}/paths-info/main"
    asked = {"paths": ["config.json", "absent.txt"], "expand": "true"}
    form = keyed.ask("reader", where, "POST", data=asked)
    assert [(entry["path"], entry["lastCommit"]["title"]) for entry in form.json()] == [("config.json", "m")]
    as_json = keyed.ask("reader", where, "POST", json={"paths": ["config.json"]})
    assert [entry["path"] for entry in as_json.json()] == ["config.json"]
    assert keyed.ask("reader", where, "POST", json={"paths": [1]}).status_code == 400
    assert keyed.ask("other", f"/api/models/{GATED}/paths-info/main", "POST", data=asked).status_code == 403


def test_who_sends_no_token_is_told_so_and_how_to_send_one(keyed: Keyed, tmp_path: Path) -> None:
    told = "no token was sent; set HF_TOKEN, or log in with `hf auth login`."
    for path in (f"/api/models/{PUBLIC}", f"/{PUBLIC}/resolve/main/config.json", "/api/models/team/absent"):
        answer = keyed.ask(None, path)
        assert answer.status_code == 401
        assert answer.headers["X-Error-Message"].endswith(told)
        assert answer.json()["error"].endswith(told)
    assert "token" not in keyed.ask("other", "/api/models/team/absent").json()["error"]
    with pytest.raises(RepositoryNotFoundError, match="no token was sent"):
        snapshot_download(PUBLIC, endpoint=keyed.service.url, token=False, cache_dir=tmp_path)


@pytest.mark.parametrize("form", ["grant", "handle"])
def test_a_token_that_is_sent_in_place_of_a_keys_name_is_not_repeated(keyed: Keyed, form: str) -> None:
    secret, path = keyed.keys["friend"], f"/api/models/{GATED}/user-access-request/{form}"
    for sent in (secret, f" {secret}", secret[:14], f"Bearer {secret}"):
        answer = keyed.ask("owner", path, "POST", json={"user": sent, "status": "accepted"})
        assert answer.status_code == 400
        for text in (answer.text, answer.headers["X-Error-Message"]):
            assert secret[:12] not in text
            assert f"{secret[:11]}..." in text, "as lists show it"
    with keyed.service.sessions() as session:
        assert secret[11:] not in str(session.execute(select(AuditRow.__table__)).all())


def test_a_key_is_granted_access_under_each_name_that_lists_show(keyed: Keyed) -> None:
    path = f"/api/models/{GATED}/user-access-request/grant"
    key_id = keyed.ids["other"]
    for shown in ("other", key_id, f"hf_{key_id}..."):
        assert keyed.ask("other", f"/{GATED}/resolve/main/config.json").status_code == 403
        assert keyed.ask("owner", path, "POST", json={"user": shown}).status_code == 200
        assert keyed.ask("other", f"/{GATED}/resolve/main/config.json").status_code == 200
        taken = {"user": shown, "status": "rejected"}
        assert keyed.ask("owner", path.replace("grant", "handle"), "POST", json=taken).status_code == 200
