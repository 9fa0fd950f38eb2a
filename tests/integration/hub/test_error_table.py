"""Each row of the error table raises the client's own exception over plain http."""

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.integration.hub.conftest import MODEL, Hub

Client = Callable[..., Any]

RAISED = """
from huggingface_hub import HfApi, hf_hub_download, snapshot_download
api = HfApi()
def raised(call):
    try:
        call()
    except Exception as error:
        return [type(error).__name__, getattr(getattr(error, "response", None), "status_code", None)]
    return None
"""

MISSING_REPO = """
for repo in ("team/nothing", "nothing", "team/private"):
    result = (result or []) + [
        raised(lambda: api.model_info(repo)),
        raised(lambda: api.list_repo_files(repo)),
        raised(lambda: hf_hub_download(repo, "config.json")),
        raised(lambda: snapshot_download(repo)),
    ]
"""


@pytest.mark.parametrize(("token", "status"), [(None, 401), ("hf_good", 404)])
def test_a_private_repository_looks_like_a_missing_one(client: Client, token: str | None, status: int) -> None:
    found = client(RAISED + MISSING_REPO, token=token)
    assert found == [["RepositoryNotFoundError", status]] * 12


def test_a_missing_revision(client: Client) -> None:
    code = f"""
result = [
    raised(lambda: api.model_info("{MODEL}", revision="nope")),
    raised(lambda: api.list_repo_files("{MODEL}", revision="no/pe")),
    raised(lambda: hf_hub_download("{MODEL}", "config.json", revision="nope")),
    raised(lambda: hf_hub_download("{MODEL}", "config.json", revision="{"0" * 40}")),
    raised(lambda: snapshot_download("{MODEL}", revision="nope")),
    raised(lambda: hf_hub_download("team/missed", "config.json")),
]
"""
    assert client(RAISED + code) == [["RevisionNotFoundError", 404]] * 6


def test_a_missing_file_is_remembered_as_absent(hub: Hub, client: Client) -> None:
    code = f"""
from huggingface_hub import try_to_load_from_cache
result = [
    raised(lambda: hf_hub_download("{MODEL}", "no.json")),
    raised(lambda: hf_hub_download("{MODEL}", "no/such/dir.json", revision="feature/x")),
    raised(lambda: list(api.list_repo_tree("{MODEL}", "no/dir"))),
    type(try_to_load_from_cache("{MODEL}", "no.json")).__name__,
]
"""
    *raised, cached = client(RAISED + code)
    assert raised == [["RemoteEntryNotFoundError", 404]] * 3
    assert cached == "object", "the client's marker for a file that is known to be absent"


@pytest.mark.parametrize(("token", "status"), [(None, 401), ("hf_good", 403)])
def test_a_gated_repository_shows_its_info_and_no_file(client: Client, token: str | None, status: int) -> None:
    code = """
result = [
    api.model_info("team/gated").id,
    raised(lambda: api.list_repo_files("team/gated")),
    raised(lambda: hf_hub_download("team/gated", "config.json")),
]
"""
    assert client(RAISED + code, token=token) == ["team/gated"] + [["GatedRepoError", status]] * 2


def test_a_bad_token(client: Client) -> None:
    code = f"""
result = [raised(lambda: api.model_info("{MODEL}")), raised(lambda: snapshot_download("{MODEL}"))]
"""
    assert client(RAISED + code, token="hf_bad") == [["HfHubHTTPError", 401]] * 2


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/team/nothing/resolve/main/x", 401, "RepoNotFound"),
        ("/api/models/..%2F..%2Fetc", 401, "RepoNotFound"),
        (f"/{MODEL}/resolve/nope/x", 404, "RevisionNotFound"),
        (f"/{MODEL}/resolve/main/..%2F..%2Fetc%2Fpasswd", 404, "EntryNotFound"),
        (f"/{MODEL}/resolve/main/%00", 404, "EntryNotFound"),
        (f"/{MODEL}/resolve/%00/config.json", 404, "RevisionNotFound"),
        (f"/{MODEL}/resolve/%F0%9F%A6%99%0A/config.json", 404, "RevisionNotFound"),
        (f"/api/models/{MODEL}/tree/main/config.json", 404, "EntryNotFound"),
    ],
)
def test_errors_carry_code_message_and_json(hub: Hub, path: str, status: int, code: str) -> None:
    for method in ("GET", "HEAD"):
        if method == "HEAD" and path.startswith("/api"):
            continue
        answer = hub.http.request(method, path)
        assert answer.status_code == status
        assert answer.headers["X-Error-Code"] == code
        assert answer.headers["X-Error-Message"]
        if method == "GET":
            assert answer.json()["error"]
        if code == "EntryNotFound":
            assert answer.headers["X-Repo-Commit"] == hub.commits["main"]


def test_a_cursor_that_is_not_ours_is_a_bad_request(hub: Hub) -> None:
    answer = hub.http.get(f"/api/models/{MODEL}/tree/main", params={"cursor": "!"})
    assert answer.status_code == 400
    assert "begin again" in answer.json()["error"]
    assert answer.headers["X-Error-Code"] == "BadRequest"


FORGED = [
    ["name", "\0", "a"],
    ["name", "\ud800", "a"],
    ["name", "a", True],
    ["name", "a", 1],
    ["name", "a", "../b"],
    ["name", 1, "a"],
    ["name", "../a", "a"],
    ["last_modified", "2026-01-01T00:00:00", "a"],
    ["last_modified", "0001-01-01T00:00:00+14:00", "a"],
    ["last_modified", "9999-12-31T23:59:59-14:00", "a"],
    ["last_modified", "yesterday", "a"],
    ["last_modified"],
    {"a": 1, "b": 2, "c": 3},
    None,
]


@given(st.sampled_from(FORGED) | st.recursive(st.none() | st.integers() | st.text(), st.lists))
@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
def test_a_forged_list_cursor_is_a_bad_request(hub: Hub, content: Any) -> None:
    cursor = base64.urlsafe_b64encode(json.dumps(content).encode()).decode().rstrip("=")
    for sort in (None, "lastModified", "createdAt"):
        answer = hub.http.get("/api/models", params={"cursor": cursor} | ({"sort": sort} if sort else {}))
        assert answer.status_code == 400
        assert answer.headers["X-Error-Code"] == "BadRequest"
