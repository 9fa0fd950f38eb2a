"""The wire format itself, as hub clients rely on it."""

import hashlib
import subprocess
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from tests.integration.hub.conftest import BIG_BYTES, MANY_FILES, MODEL, Hub
from tests.service_process import wait_until

BIG = "/team/big/resolve/main/big.bin"


def test_head_tells_commit_etag_and_length_without_a_body(hub: Hub, stories_model: Path) -> None:
    weights = (stories_model / "model.safetensors").read_bytes()
    answer = hub.http.head(f"/{MODEL}/resolve/main/model.safetensors")
    assert answer.status_code == 200
    assert answer.content == b""
    assert answer.headers["X-Repo-Commit"] == hub.commits["main"]
    assert answer.headers["ETag"] == f'"{hashlib.sha256(weights).hexdigest()}"'
    assert answer.headers["Content-Length"] == str(len(weights))
    assert answer.headers["Accept-Ranges"] == "bytes"
    assert "Location" not in answer.headers


def test_a_small_file_has_gits_name_as_its_etag(hub: Hub, stories_model: Path) -> None:
    git = subprocess.run(
        ["git", "hash-object", stories_model / "config.json"], capture_output=True, text=True, check=True
    )
    answer = hub.http.get(f"/{MODEL}/resolve/main/config.json")
    assert answer.headers["ETag"] == f'"{git.stdout.strip()}"'
    assert answer.content == (stories_model / "config.json").read_bytes()


def test_files_are_never_compressed_and_never_sniffed(hub: Hub) -> None:
    answer = hub.http.get(BIG, headers={"Accept-Encoding": "gzip, br"})
    assert "Content-Encoding" not in answer.headers
    assert answer.headers["Content-Length"] == str(BIG_BYTES)
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Content-Disposition"].startswith("attachment")


@pytest.mark.parametrize(
    ("asked", "start", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=0-", 0, BIG_BYTES),
        ("bytes=5000000-7000000", 5_000_000, 7_000_001),
        ("bytes=-10", BIG_BYTES - 10, BIG_BYTES),
        (f"bytes={BIG_BYTES - 1}-", BIG_BYTES - 1, BIG_BYTES),
        (f"bytes=10-{10 * BIG_BYTES}", 10, BIG_BYTES),
    ],
)
def test_a_range_is_answered_with_exactly_its_bytes(hub: Hub, asked: str, start: int, end: int) -> None:
    answer = hub.http.get(BIG, headers={"Range": asked})
    assert answer.status_code == 206
    assert answer.headers["Content-Range"] == f"bytes {start}-{end - 1}/{BIG_BYTES}"
    assert answer.headers["Content-Length"] == str(end - start)
    assert answer.headers["X-Repo-Commit"]
    assert answer.headers["ETag"] == f'"{hashlib.sha256(hub.big).hexdigest()}"'
    assert answer.content == hub.big[start:end]


@pytest.mark.parametrize("asked", [f"bytes={BIG_BYTES}-", "bytes=9-5", "bytes=a-b", "bytes=-0"])
def test_a_range_outside_the_file_is_416(hub: Hub, asked: str) -> None:
    answer = hub.http.get(BIG, headers={"Range": asked})
    assert answer.status_code == 416
    assert answer.headers["Content-Range"] == f"bytes */{BIG_BYTES}"


def test_a_range_on_head_and_an_outdated_if_range_get_the_whole_file(hub: Hub) -> None:
    assert hub.http.head(BIG, headers={"Range": "bytes=0-0"}).status_code == 200
    outdated = hub.http.get(BIG, headers={"Range": "bytes=0-0", "If-Range": '"old"'})
    assert (outdated.status_code, len(outdated.content)) == (200, BIG_BYTES)
    etag = outdated.headers["ETag"]
    assert hub.http.get(BIG, headers={"Range": "bytes=0-0", "If-Range": etag}).status_code == 206


def test_a_known_etag_is_answered_with_304(hub: Hub) -> None:
    etag = hub.http.head(BIG).headers["ETag"]
    for method in ("GET", "HEAD"):
        answer = hub.http.request(method, BIG, headers={"If-None-Match": etag})
        assert answer.status_code == 304
        assert answer.headers["ETag"] == etag
        assert answer.headers["X-Repo-Commit"]
        assert answer.content == b""


def test_a_revision_is_one_encoded_segment(hub: Hub) -> None:
    for revision, where in (("feature%2Fx", "feature/x"), ("feature%2fx", "feature/x"), ("v1%2Frc", "feature/x")):
        answer = hub.http.head(f"/{MODEL}/resolve/{revision}/extra.txt")
        assert answer.headers["X-Repo-Commit"] == hub.commits[where]


def test_tree_pages_link_absolutely_and_stay_on_one_commit(hub: Hub) -> None:
    first = hub.http.get("/api/models/team/many/tree/main", params={"recursive": "true"})
    assert len(first.json()) == 1000
    link = first.links["next"]["url"]
    assert link.startswith(f"{hub.url}/api/models/team/many/tree/{first.headers['X-Repo-Commit']}?")
    second = hub.http.get(link)
    assert len(second.json()) == MANY_FILES - 1000
    assert "Link" not in second.headers


def test_the_list_of_models_is_paged(hub: Hub) -> None:
    names: list[str] = []
    url: str | None = "/api/models?limit=2"
    while url:
        answer = hub.http.get(url)
        names += [model["id"] for model in answer.json()]
        url = answer.links["next"]["url"] if "next" in answer.links else None
    assert names == sorted(names)
    assert {MODEL, "stories", "team/missed"} <= set(names)
    assert "team/private" not in names


def test_a_repository_without_main_has_info_but_no_files(hub: Hub) -> None:
    info = hub.http.get("/api/models/team/missed").json()
    assert info["sha"] is None
    assert info["siblings"] == []
    assert hub.http.get("/api/models/team/missed/revision/job-1").json()["siblings"] == [{"rfilename": "config.json"}]


def test_whoami_names_the_keyless_caller(hub: Hub) -> None:
    assert hub.http.get("/api/whoami-v2").json()["auth"]["accessToken"]["role"] == "write"


def test_many_downloads_at_once_all_arrive(hub: Hub) -> None:
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda _: hub.http.get(BIG).content == hub.big, range(8)))
    assert all(answers)


def test_a_client_that_goes_away_leaves_no_file_open(hub: Hub) -> None:
    def open_blobs() -> int:
        found = 0
        for descriptor in Path("/proc/self/fd").iterdir():
            with suppress(FileNotFoundError):  # the server, in this process too, closes others meanwhile
                found += "/blobs/sha256/" in str(descriptor.readlink())
        return found

    for _ in range(8):
        with hub.http.stream("GET", BIG) as answer:
            next(answer.iter_raw(1024))
    wait_until(lambda: open_blobs() == 0, what="none is open")
