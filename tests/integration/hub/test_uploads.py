"""Uploads and commits over the wire, with API keys, over both databases."""

import base64
import hashlib
import os
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Barrier
from typing import Any
from uuid import uuid4

import httpx
import pytest
from huggingface_hub import HfApi

from app.auth import keys
from app.auth.scopes import Scope
from app.db.models import JobRow
from app.hub import directory
from app.hub.publishing import StagedFile, commit_files
from app.hub.revisions import repo_named
from app.hub.uploads import PART_BYTES, Part
from tests.integration.hub.keyed import PRIVATE, PUBLIC, Keyed

Line = tuple[str, dict[str, Any]]


def inline(path: str, content: bytes = b"x") -> Line:
    return "file", {"path": path, "content": base64.b64encode(content).decode(), "encoding": "base64"}


def stored(path: str, content: bytes, **more: Any) -> Line:
    sha256 = hashlib.sha256(content).hexdigest()
    return "lfsFile", {"path": path, "algo": "sha256", "oid": sha256, "size": len(content)} | more


@pytest.fixture
def repo(keyed: Keyed) -> str:
    """A private repository of `owner`, new for each test."""
    name = f"own/{uuid4().hex[:12]}"
    keyed.make("owner", name, visibility="private")
    return name


def send(keyed: Keyed, who: str, repo: str, content: bytes) -> httpx.Response:
    """Upload one object by the links of a batch, without a key."""
    (entry,) = keyed.batch(who, repo, content).json()["objects"]
    actions = entry["actions"]
    put = httpx.put(actions["upload"]["href"], content=content)
    if put.status_code != 200:
        return put
    return httpx.post(actions["verify"]["href"], json={"oid": entry["oid"], "size": entry["size"]})


def test_a_large_file_goes_up_by_a_link_and_comes_back_identical(keyed: Keyed, repo: str) -> None:
    content = os.urandom(3 << 20)
    assert send(keyed, "owner", repo, content).status_code == 200
    made = keyed.commit("owner", repo, stored("model.safetensors", content), inline("config.json", b"{}"))
    assert made.status_code == 200, made.text
    assert made.json()["commitUrl"].endswith(f"/{repo}/commit/{made.json()['commitOid']}")
    down = keyed.ask("owner", f"/{repo}/resolve/main/model.safetensors")
    assert down.content == content
    assert down.headers["ETag"] == f'"{hashlib.sha256(content).hexdigest()}"'
    assert "actions" not in keyed.batch("owner", repo, content).json()["objects"][0], "sent once is enough"
    history = keyed.ask("owner", f"/api/models/{repo}/commits/main").json()
    assert [(commit["title"], commit["authors"][0]["user"]) for commit in history] == [
        ("m", "owner"),
        ("initial commit", "owner"),
    ]


def test_parts_come_in_any_order_and_again_and_the_whole_is_checked(keyed: Keyed, repo: str) -> None:
    content = os.urandom(1 << 20) + bytes(PART_BYTES)  # two parts, of which the second is short
    (entry,) = keyed.batch("owner", repo, content).json()["objects"]
    upload = entry["actions"]["upload"]
    links = [upload["header"][number] for number in ("1", "2")]
    assert upload["header"]["chunk_size"] == str(PART_BYTES)
    assert httpx.post(upload["href"], json={}).status_code == 400, "no part is there yet"
    second = httpx.put(links[1], content=content[PART_BYTES:])
    assert second.headers["ETag"]
    assert httpx.put(links[0], content=bytes(PART_BYTES)).status_code == 200
    assert httpx.post(upload["href"], json={}).status_code == 422, "the first part is another one"
    for number in (1, 0, 0):
        part = content[number * PART_BYTES : (number + 1) * PART_BYTES]
        assert httpx.put(links[number], content=part).status_code == 200
    for _ in range(2):
        assert httpx.post(upload["href"], json={}).status_code == 200
    assert httpx.post(entry["actions"]["verify"]["href"], json={}).status_code == 200
    assert keyed.commit("owner", repo, stored("big.bin", content)).status_code == 200
    assert not list(keyed.service.parts.settings.uploads_dir.glob("parts/*"))


def test_a_batch_of_the_largest_files_is_answered_at_once_and_with_few_links(keyed: Keyed, repo: str) -> None:
    largest = keyed.service.parts.settings.max_upload_bytes
    objects = [{"oid": f"{number:064x}", "size": largest} for number in range(256)]
    body = {"operation": "upload", "transfers": ["multipart"], "objects": objects, "hash_algo": "sha256"}
    where = f"/{repo}.git/info/lfs/objects/batch"
    answer = keyed.ask("owner", where, "POST", json=body)
    for entry in answer.json()["objects"]:
        header = entry["actions"]["upload"]["header"]
        assert len(header) - 1 == -(-largest // int(header["chunk_size"])) <= 100
    more = body | {"objects": [*objects, {"oid": "f" * 64, "size": 1}]}
    assert keyed.ask("owner", where, "POST", json=more).status_code == 400


def test_bytes_that_come_over_links_count_for_the_key_that_asked_for_the_link(keyed: Keyed, repo: str) -> None:
    content = os.urandom(3000)
    with keyed.service.sessions.begin() as session:
        row, key = keys.create(session, "ci", Scope.SUBMIT, limits=keys.Limits(max_bytes_per_day=5000))
        directory.grant(session, repo_named(session, repo), [row])
    asked = {"operation": "upload", "objects": [{"oid": hashlib.sha256(content).hexdigest(), "size": len(content)}]}
    where, headers = f"/{repo}.git/info/lfs/objects/batch", {"Authorization": f"Bearer {key}"}
    (entry,) = keyed.service.http.post(where, json=asked, headers=headers).json()["objects"]
    link = entry["actions"]["upload"]["href"]
    assert httpx.put(link, content=content).status_code == 200
    refused = httpx.put(link, content=content)
    assert (refused.status_code, refused.json()["code"]) == (429, "quota_exceeded")
    assert int(refused.headers["retry-after"]) > 0
    with keyed.service.sessions.begin() as session:
        keys.revoke(session, row.id)
    assert httpx.put(link, content=content).status_code == 403, "nor does a link outlive its key"


def test_other_bytes_than_announced_are_refused_and_nothing_is_kept(keyed: Keyed, repo: str) -> None:
    announced = os.urandom(1000)
    (entry,) = keyed.batch("owner", repo, announced).json()["objects"]
    link = entry["actions"]["upload"]["href"]
    wrong = httpx.put(link, content=bytes(1000))
    assert wrong.status_code == 422
    assert hashlib.sha256(announced).hexdigest() in wrong.json()["error"]
    assert httpx.put(link, content=announced[:-1]).status_code == 400
    assert httpx.put(link, content=announced + b"x").status_code == 413
    refused = keyed.commit("owner", repo, inline("good.txt"), stored("model.bin", announced))
    assert refused.status_code == 422
    assert "'model.bin'" in refused.headers["X-Error-Message"]
    assert keyed.files("owner", repo) == [], "a commit with any bad file applies nothing"


def test_links_are_signed_and_are_for_one_thing(keyed: Keyed, repo: str) -> None:
    (entry,) = keyed.batch("owner", repo, b"content").json()["objects"]
    link: str = entry["actions"]["upload"]["href"]
    for forged in (link[:-1] + ("A" if link[-1] != "A" else "B"), link.rsplit("/", 1)[0] + "/x.y", link + ".z"):
        answer = httpx.put(forged, content=b"content")
        assert answer.status_code == 403
        assert "begin the upload again" in answer.json()["error"]


@pytest.mark.parametrize("content", [b"content", b"longer content"])
def test_knowing_a_sha256_makes_nobody_elses_blob_ones_own(keyed: Keyed, repo: str, content: bytes) -> None:
    secret = uuid4().bytes + content
    assert send(keyed, "owner", repo, secret).status_code == 200
    assert keyed.commit("owner", repo, stored("secret.bin", secret)).status_code == 200
    mine = f"other/{uuid4().hex[:12]}"
    keyed.make("other", mine)
    assert "actions" in keyed.batch("other", mine, secret).json()["objects"][0]
    claimed = keyed.commit("other", mine, stored("stolen.bin", secret))
    assert claimed.status_code == 422
    assert "'stolen.bin'" in claimed.headers["X-Error-Message"]
    assert send(keyed, "other", mine, secret).status_code == 200, "who has the bytes may send them"
    assert keyed.commit("other", mine, stored("own.bin", secret)).status_code == 200


BAD_PATHS = ["../x", "a/../b", "/etc/passwd", "a\0b", ".git/config", "a/.GIT/x", "", "a//b", ".", "a\\b", "x" * 1025]


@pytest.mark.parametrize("path", BAD_PATHS)
def test_a_bad_path_is_refused_by_name_and_nothing_is_committed(keyed: Keyed, repo: str, path: str) -> None:
    before = keyed.ask("owner", f"/api/models/{repo}").json()["sha"]
    for line in (inline(path), stored(path, b"x")):
        refused = keyed.commit("owner", repo, inline("good.txt"), line)
        assert refused.status_code == 422
        assert repr(path[:200]).encode("ascii", "backslashreplace").decode() in refused.json()["error"]
    asked = keyed.ask(
        "owner", f"/api/models/{repo}/preupload/main", "POST", json={"files": [{"path": path, "size": 1}]}
    )
    assert asked.status_code == 422
    assert keyed.ask("owner", f"/api/models/{repo}").json()["sha"] == before


@pytest.mark.parametrize(
    "lines",
    [
        [("file", {"path": "a", "content": "!", "encoding": "base64"})],
        [("file", {"path": "a", "content": 5})],
        [("lfsFile", {"path": "a", "oid": "short"})],
        [inline("a"), inline("a/b")],
    ],
)
def test_a_bad_file_is_refused_by_name(keyed: Keyed, repo: str, lines: list[Line]) -> None:
    refused = keyed.commit("owner", repo, inline("good.txt"), *lines)
    assert refused.status_code == 422
    assert "'a'" in refused.headers["X-Error-Message"]
    assert keyed.files("owner", repo) == []


@pytest.mark.parametrize("body", [b"", b"{", b"[]\n", b'{"key": "header"}\n', b'{"key": "x", "value": {}}\n', b"null"])
def test_what_is_no_commit_is_a_bad_request(keyed: Keyed, repo: str, body: bytes) -> None:
    assert keyed.ask("owner", f"/api/models/{repo}/commit/main", "POST", content=body).status_code == 400


def test_files_and_folders_are_deleted_and_a_missing_one_stops_the_commit(keyed: Keyed, repo: str) -> None:
    assert keyed.commit("owner", repo, *map(inline, ("a", "b", "d/e", "d/f"))).status_code == 200
    gone = keyed.commit("owner", repo, ("deletedFile", {"path": "a"}), ("deletedFolder", {"path": "d/"}))
    assert gone.status_code == 200
    assert keyed.files("owner", repo) == ["b"]
    for line in (("deletedFile", {"path": "a"}), ("deletedFolder", {"path": "d"})):
        refused = keyed.commit("owner", repo, inline("c"), line)
        assert (refused.status_code, refused.headers["X-Error-Code"]) == (404, "EntryNotFound")
    assert keyed.files("owner", repo) == ["b"]


def test_a_commit_that_changes_nothing_is_the_one_that_is_there(keyed: Keyed, repo: str) -> None:
    first = keyed.commit("owner", repo, inline("a")).json()["commitOid"]
    assert keyed.commit("owner", repo, inline("a")).json()["commitOid"] == first


def test_a_stale_parent_is_refused(keyed: Keyed, repo: str) -> None:
    parent = keyed.ask("owner", f"/api/models/{repo}").json()["sha"]
    assert keyed.commit("owner", repo, inline("a"), parent=parent[:7]).status_code == 200
    stale = keyed.commit("owner", repo, inline("b"), parent=parent)
    assert stale.status_code == 412
    assert "Please refresh" in stale.headers["X-Error-Message"]
    assert keyed.files("owner", repo) == ["a"]


def test_of_commits_that_race_one_wins_and_the_others_get_412(keyed: Keyed, repo: str) -> None:
    racers = 4
    barrier = Barrier(racers)
    header = b'{"key": "header", "value": {"summary": "race"}}\n'

    def race(number: int) -> int:
        def body() -> Any:
            yield header
            barrier.wait()  # all requests have been let in, and see one base
            yield b'{"key": "file", "value": {"path": "%d", "content": "x"}}\n' % number

        with httpx.Client(base_url=keyed.service.url, timeout=60) as http:
            where = f"/api/models/{repo}/commit/main"
            return http.post(
                where, content=body(), headers={"Authorization": f"Bearer {keyed.keys['owner']}"}
            ).status_code

    with ThreadPoolExecutor(racers) as threads:
        statuses = sorted(threads.map(race, range(racers)))
    # A request whose first line was still on its way when another committed has seen the newer base.
    assert statuses.count(200) >= 1
    assert set(statuses) <= {200, 412}
    assert len(keyed.files("owner", repo)) == statuses.count(200), "no commit is lost and none is applied twice"
    assert len(keyed.ask("owner", f"/api/models/{repo}/commits/main").json()) == 1 + statuses.count(200)


def test_an_upload_that_breaks_off_leaves_nothing(keyed: Keyed, repo: str) -> None:
    content = os.urandom(1 << 20)
    (entry,) = keyed.batch("owner", repo, content).json()["objects"]
    link = httpx.URL(entry["actions"]["upload"]["href"])
    with socket.create_connection((link.host, link.port or 80)) as raw:
        head = f"PUT {link.raw_path.decode()} HTTP/1.1\r\nHost: {link.host}\r\nContent-Length: {len(content)}\r\n\r\n"
        raw.sendall(head.encode() + content[: 1 << 19])
    assert httpx.post(entry["actions"]["verify"]["href"], json={}).status_code == 400
    assert keyed.commit("owner", repo, stored("a.bin", content)).status_code == 422
    assert keyed.files("owner", repo) == []


def test_more_than_the_cap_is_refused_before_a_byte_is_sent(keyed: Keyed, repo: str) -> None:
    limit = keyed.service.parts.settings.max_upload_bytes
    asked = {"files": [{"path": "huge.bin", "size": limit + 1}]}
    refused = keyed.ask("owner", f"/api/models/{repo}/preupload/main", "POST", json=asked)
    assert refused.status_code == 413
    assert "'huge.bin'" in refused.headers["X-Error-Message"]
    objects = [{"oid": "0" * 64, "size": limit + 1}]
    assert keyed.batch("owner", repo, objects=objects).status_code == 413


def test_a_line_longer_than_a_regular_file_is_refused(keyed: Keyed, repo: str) -> None:
    refused = keyed.commit("owner", repo, inline("a", bytes(9 << 20)))
    assert refused.status_code == 413
    assert "before the commit" in refused.headers["X-Error-Message"]


def test_reading_keys_write_nothing(keyed: Keyed, repo: str) -> None:
    calls: list[Callable[[], httpx.Response]] = [
        lambda: keyed.commit("reader", PUBLIC, inline("a")),
        lambda: keyed.batch("reader", PUBLIC, b"x"),
        lambda: keyed.ask("reader", "/api/repos/create", "POST", json={"name": "mine"}),
        lambda: keyed.ask("reader", f"/api/models/{PUBLIC}/branch/b", "POST", json={}),
        lambda: keyed.ask("reader", f"/api/models/{PUBLIC}/tag/main", "POST", json={"tag": "t"}),
        lambda: keyed.ask("reader", f"/api/models/{PUBLIC}/settings", "PUT", json={"private": True}),
    ]
    assert [call().status_code for call in calls] == [403] * len(calls)
    for call in (keyed.commit("other", PRIVATE, inline("a")), keyed.commit("other", "team/absent", inline("a"))):
        assert (call.status_code, call.headers["X-Error-Code"]) == (404, "RepoNotFound")


def test_a_repository_is_made_once_moved_and_deleted_by_its_owner(keyed: Keyed, repo: str) -> None:
    organization, _, name = repo.partition("/")
    again = keyed.ask("owner", "/api/repos/create", "POST", json={"name": name, "organization": organization})
    assert again.status_code == 409
    assert again.json()["url"].endswith(f"/{repo}")
    move = {"fromRepo": repo, "toRepo": f"{repo}-moved", "type": "model"}
    assert keyed.ask("other", "/api/repos/move", "POST", json=move).status_code == 404
    assert keyed.ask("owner", "/api/repos/move", "POST", json=move | {"toRepo": PUBLIC}).status_code == 409
    assert keyed.ask("owner", "/api/repos/move", "POST", json=move | {"toRepo": "../x"}).status_code == 400
    assert keyed.ask("owner", "/api/repos/move", "POST", json=move).status_code == 200
    assert keyed.ask("owner", f"/api/models/{repo}").status_code == 404
    gone = {"name": f"{name}-moved", "organization": organization}
    assert keyed.ask("other", "/api/repos/delete", "DELETE", json=gone).status_code == 404
    assert keyed.ask("owner", "/api/repos/delete", "DELETE", json=gone).status_code == 200
    assert keyed.ask("owner", f"/api/models/{repo}-moved").status_code == 404
    assert (
        keyed.ask("other", "/api/repos/delete", "DELETE", json={"name": "open", "organization": "team"}).status_code
        == 403
    )


@pytest.mark.parametrize("settings", [{"private": True}, {"visibility": "private"}])
def test_old_and_new_clients_make_private_repositories(keyed: Keyed, settings: dict[str, Any]) -> None:
    name = f"own/{uuid4().hex[:12]}"
    keyed.make("owner", name, **settings)
    assert keyed.ask("owner", f"/api/models/{name}").json()["private"] is True
    opened = keyed.ask("owner", f"/api/models/{name}/settings", "PUT", json={"visibility": "public", "gated": "manual"})
    assert opened.status_code == 200
    seen = keyed.ask("reader", f"/api/models/{name}").json()
    assert (seen["private"], seen["gated"]) == (False, "manual")


@pytest.mark.parametrize(
    "body",
    [{"name": "x", "type": "dataset"}, {"name": "api"}, {"name": "../x"}, {"name": "x", "visibility": "odd"}, {}],
)
def test_what_is_no_model_repository_is_not_made(keyed: Keyed, body: dict[str, Any]) -> None:
    refused = keyed.ask("owner", "/api/repos/create", "POST", json=body)
    assert refused.status_code == 400
    assert refused.headers["X-Error-Message"]


def test_branches_and_tags_are_made_once_and_deleted(keyed: Keyed, repo: str) -> None:
    where = f"/api/models/{repo}"
    assert keyed.ask("owner", f"{where}/branch/feature%2Fx", "POST", json={}).status_code == 201
    assert keyed.ask("owner", f"{where}/branch/feature%2Fx", "POST", json={}).status_code == 409
    assert keyed.commit("owner", repo, inline("a"), branch="feature/x").status_code == 200
    assert (keyed.files("owner", repo), keyed.files("owner", repo, "feature/x")) == ([], ["a"])
    assert keyed.ask("owner", f"{where}/tag/feature%2Fx", "POST", json={"tag": "v1"}).status_code == 201
    assert keyed.ask("owner", f"{where}/tag/main", "POST", json={"tag": "v1"}).status_code == 409
    assert keyed.ask("owner", f"{where}/tag/main", "POST", json={"tag": "a..b"}).status_code == 400
    assert keyed.ask("owner", f"{where}/branch/main", "DELETE").status_code == 403
    assert keyed.ask("owner", f"{where}/branch/feature%2Fx", "DELETE").status_code == 200
    assert keyed.ask("owner", f"{where}/branch/feature%2Fx", "DELETE").status_code == 404
    assert keyed.files("owner", repo, "v1") == ["a"], "a tag keeps what a branch held"
    assert keyed.ask("owner", f"{where}/tag/v1", "DELETE").status_code == 200
    assert keyed.commit("owner", repo, inline("a"), branch="absent").headers["X-Error-Code"] == "RevisionNotFound"


def test_main_of_a_jobs_repository_moves_by_jobs_alone(keyed: Keyed) -> None:
    name = f"own/{uuid4().hex[:12]}"
    blob = keyed.service.parts.blobs.put_bytes(b"weights")
    files = [StagedFile("model.bin", blob.size, blob.sha256, blob.git_oid)]
    with keyed.service.sessions.begin() as session:
        missed = commit_files(session, name, files, "m", ref=None, job_id="j", owner=keyed.ids["owner"]).oid
    where = f"/api/models/{name}"
    refused = keyed.ask("owner", f"{where}/branch/main", "POST", json={"startingPoint": missed})
    assert refused.status_code == 403
    assert "passes its gates" in refused.headers["X-Error-Message"]
    # A tag would be taken for the branch that is missing, and a job's own tag tells what that job made.
    for tag in ("main", "job-j"):
        assert keyed.ask("owner", f"{where}/tag/{missed}", "POST", json={"tag": tag}).status_code == 403
    assert keyed.ask("owner", f"{where}/branch/job-j", "POST", json={"startingPoint": missed}).status_code == 403
    kept = keyed.ask("owner", f"{where}/tag/job-j", "DELETE")
    assert kept.status_code == 403
    assert "which checkpoint a job made" in kept.headers["X-Error-Message"]
    assert keyed.ask("owner", f"{where}/branch/try", "POST", json={"startingPoint": missed}).status_code == 201
    assert keyed.commit("owner", name, inline("README.md"), branch="try").status_code == 200
    with keyed.service.sessions.begin() as session:
        commit_files(session, name, files, "m", job_id="j2")
    preupload = {"files": [{"path": "a", "size": 1}]}
    assert keyed.ask("owner", f"{where}/preupload/main", "POST", json=preupload).status_code == 403
    assert keyed.commit("owner", name, inline("README.md")).status_code == 403


def test_main_of_a_jobs_repository_goes_back_to_what_has_passed_and_by_an_administrator_alone(keyed: Keyed) -> None:
    name, jobs = f"own/{uuid4().hex[:12]}", {verdict: uuid4().hex for verdict in ("pass", "fail")}
    order = (jobs["pass"], jobs["fail"], "later")
    blobs = {job: keyed.service.parts.blobs.put_bytes(job.encode()) for job in order}
    made = {}
    with keyed.service.sessions.begin() as session:
        for job, blob in blobs.items():
            files = [StagedFile("model.bin", blob.size, blob.sha256, blob.git_oid)]
            ref = None if job == jobs["fail"] else "main"
            made[job] = commit_files(session, name, files, job, ref=ref, job_id=job, owner=keyed.ids["owner"]).oid
        spec = {"model": {"repo": "team/dense"}, "replacement": {"kind": "ffn"}, "scoring": {"metric": "cosine"}}
        spec |= {"calibration": {"dataset": "ds"}}
        for verdict, job in jobs.items():
            session.add(JobRow(id=job, state="succeeded", spec=spec, model="team/dense", verdict=verdict))

    def move(who: str, job: str, branch: str = "main") -> httpx.Response:
        body = {"startingPoint": made[job], "overwrite": True}
        return keyed.ask(who, f"/api/models/{name}/branch/{branch}", "POST", json=body)

    def moved(who: str, job: str, branch: str = "main") -> int:
        return move(who, job, branch).status_code

    def head() -> str:
        return str(keyed.ask("owner", f"/api/models/{name}").json()["sha"])

    assert (moved("owner", jobs["pass"]), moved("reader", jobs["pass"]), head()) == (403, 403, made["later"])
    assert (moved("admin", jobs["fail"]), head()) == (403, made["later"])
    assert "scope admin alone" in move("owner", jobs["pass"]).json()["error"]
    missed = move("admin", jobs["fail"])
    assert missed.json()["error"].startswith(f"{made[jobs['fail']]} has not passed its gates")
    assert "scope" not in missed.headers["X-Error-Message"], "the key is not what is wrong"
    assert (moved("admin", jobs["pass"]), head()) == (201, made[jobs["pass"]])
    assert name in keyed.listed("owner", filter="replacement:ffn")
    assert moved("owner", "later", "served") == moved("owner", jobs["pass"], "served") == 201
    assert keyed.ask("owner", f"/api/models/{name}/revision/served").json()["sha"] == made[jobs["pass"]]


@pytest.mark.parametrize(
    "path",
    [
        "/api/models/x/commit/preupload/main",
        "/api/models/x/commit/paths-info/main",
        "/api/models/a/b/preupload/x%2Fcommit%2Fy",
        "/api/models/a/preupload/commit%2Fy",
    ],
)
def test_only_a_commit_may_be_as_long_as_a_commit(keyed: Keyed, path: str) -> None:
    longer = keyed.service.parts.settings.max_body_bytes + 1
    assert keyed.ask(None, path, "POST", content=bytes(longer)).status_code == 413


def test_access_is_granted_and_taken_back(keyed: Keyed, repo: str) -> None:
    where = f"/api/models/{repo}"
    assert keyed.ask("reader", where).status_code == 404
    access = f"{where}/user-access-request"
    assert keyed.ask("owner", f"{access}/grant", "POST", json={"user": "reader"}).status_code == 200
    assert keyed.ask("reader", where).status_code == 200
    listed = keyed.ask("owner", f"{access}/accepted").json()
    assert [entry["user"]["user"] for entry in listed] == ["reader"]
    assert keyed.ask("reader", f"{access}/grant", "POST", json={"user": "other"}).status_code == 403
    assert keyed.ask("owner", f"{access}/grant", "POST", json={"user": "nobody"}).status_code == 400
    taken = {"user": keyed.ids["reader"], "status": "rejected"}
    assert keyed.ask("owner", f"{access}/handle", "POST", json=taken).status_code == 200
    assert keyed.ask("reader", where).status_code == 404


def test_the_stock_client_grants_access_and_takes_it_back(keyed: Keyed, repo: str) -> None:
    api = HfApi(endpoint=keyed.service.url, token=keyed.keys["owner"])
    for give, take in (
        (api.grant_access, api.cancel_access_request),
        (api.accept_access_request, partial(api.reject_access_request, rejection_reason="no longer")),
    ):
        give(repo, "reader")
        assert [one.username for one in api.list_accepted_access_requests(repo)] == ["reader"]
        assert keyed.ask("reader", f"/api/models/{repo}").status_code == 200
        take(repo, "reader")
        assert keyed.ask("reader", f"/api/models/{repo}").status_code == 404


def test_a_cards_metadata_is_checked(keyed: Keyed) -> None:
    def check(content: str) -> httpx.Response:
        return keyed.ask("owner", "/api/validate-yaml", "POST", json={"content": content, "repoType": "model"})

    assert check("---\nlicense: mit\n---\nhi").json() == {"errors": [], "warnings": []}
    assert check("no metadata").json()["warnings"]
    bad = check("---\na: [\n---\n")
    assert bad.status_code == 400
    assert bad.json()["errors"][0]["message"]
    assert check("---\na: &x [1]\nb: *x\n---\n").status_code == 400, "aliases can grow without bound"


def test_parts_that_were_given_up_are_collected(keyed: Keyed, repo: str) -> None:
    uploads = keyed.service.parts.settings.uploads_dir
    content = bytes(PART_BYTES) + uuid4().bytes
    (entry,) = keyed.batch("owner", repo, content).json()["objects"]
    assert httpx.put(entry["actions"]["upload"]["header"]["2"], content=content[PART_BYTES:]).status_code == 200
    (left,) = uploads.glob("parts/*")
    keyed.batch("owner", repo, content)
    assert left.exists(), "somebody may go on"
    os.utime(left, (0, 0))
    keyed.batch("owner", repo, content)
    assert not left.exists()
    assert Part.all_of(1, "a", 0, part_bytes=10) == [Part(1, "a", 0, 0, 0)]
