"""The service with its store in a bucket: what clients see is the same."""

import hashlib
import uuid
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from app.settings import Settings
from app.storage.bucket import PART_BYTES
from tests.integration.api.conftest import JOB, MODEL, Service, jsonl, problem_of, running, settings_for
from tests.s3_server import make_bucket, make_full, uploads_under_way


def settings_on(endpoint: str, url: str, data: Path, **more: object) -> Settings:
    found = settings_for(data, None)
    return found.model_copy(update={"store_url": url, "s3_endpoint_url": endpoint, **more})


@pytest.fixture(scope="module")
def s3_service(s3_endpoint: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    url = make_bucket(s3_endpoint, f"service-{uuid.uuid4().hex}") + "/streamline"
    with running(settings_on(s3_endpoint, url, tmp_path_factory.mktemp("service") / "data")) as service:
        yield service


def test_downloads_go_through_the_service_with_ranges(s3_service: Service, stories_model: Path) -> None:
    weights = (stories_model / "model.safetensors").read_bytes()
    url = f"/{MODEL}/resolve/main/model.safetensors"
    assert s3_service.http.get(url).content == weights
    part = s3_service.http.get(url, headers={"Range": "bytes=1000000-2000000"})
    assert (part.status_code, part.content) == (206, weights[1_000_000:2_000_001])
    head = s3_service.http.head(url)
    assert int(head.headers["Content-Length"]) == len(weights)


def test_a_job_is_admitted_from_the_headers_alone(s3_service: Service, tmp_path: Path) -> None:
    dataset = s3_service.upload(jsonl(*(f"Once upon a time there was number {n}." * 40 for n in range(200))))
    job = s3_service.submit(calibration={"dataset": dataset["id"]})
    assert job["state"] == "queued"
    cached = s3_service.parts.settings.cache_dir / "blobs" / "sha256"
    sizes = [path.stat().st_size for path in cached.iterdir()]
    assert max(sizes) < 3 << 20, "tokenizer and text, and not the weights"


def test_clients_are_sent_to_the_bucket_where_the_settings_say_so(
    s3_endpoint: str, tmp_path: Path, stories_model: Path
) -> None:
    url = make_bucket(s3_endpoint, f"presigned-{uuid.uuid4().hex}")
    with running(settings_on(s3_endpoint, url, tmp_path / "data", s3_presigned_seconds=60)) as service:
        answer = service.http.get(f"/{MODEL}/resolve/main/config.json", follow_redirects=False)
        assert answer.status_code == 302
        assert {"x-repo-commit", "etag"} <= set(answer.headers)
        assert answer.headers["location"].startswith(s3_endpoint)
        followed = service.http.get(f"/{MODEL}/resolve/main/config.json", follow_redirects=True)
        assert followed.content == (stories_model / "config.json").read_bytes()
        assert service.http.head(f"/{MODEL}/resolve/main/config.json").status_code == 200


@pytest.mark.parametrize(
    ("bucket", "status", "code"), [("full", 507, "storage_full"), ("refused", 503, "storage_unavailable")]
)
def test_a_bucket_that_takes_nothing_is_a_problem_that_says_so(
    s3_endpoint: str, tmp_path: Path, bucket: str, status: int, code: str
) -> None:
    url = make_bucket(s3_endpoint, f"{bucket}-{uuid.uuid4().hex}")
    with running(settings_on(s3_endpoint, url, tmp_path / "data")) as service:
        answer = service.http.post("/v1/datasets", files={"file": ("a.jsonl", jsonl("text"))})
        assert problem_of(answer, status)["code"] == code
        assert service.http.get("/v1/datasets").json()["items"] == []


@pytest.mark.parametrize("code", ["XMinioStorageFull", "QuotaExceeded", "XMinioAdminBucketQuotaExceeded"])
def test_a_bucket_that_fills_up_takes_nothing_half_and_everything_once_there_is_room(
    s3_endpoint: str, tmp_path: Path, code: str
) -> None:
    url = make_bucket(s3_endpoint, f"fills-{uuid.uuid4().hex}")
    large = uuid.uuid4().bytes + bytes(PART_BYTES)  # two parts in the bucket
    with running(settings_on(s3_endpoint, url, tmp_path / "data")) as service:
        http, data = service.http, tmp_path / "data"
        assert http.post("/api/repos/create", json={"name": "x", "organization": "own"}).status_code == 200
        batch: dict[str, object] = {"operation": "upload", "transfers": ["basic"], "hash_algo": "sha256"}
        batch |= {"objects": [{"oid": hashlib.sha256(large).hexdigest(), "size": len(large)}]}
        link = http.post("/own/x.git/info/lfs/objects/batch", json=batch).json()["objects"][0]["actions"]["upload"]
        lines = b'{"key":"header","value":{"summary":"m"}}\n'
        lines += b'{"key":"file","value":{"path":"a.txt","content":"a text of its own"}}\n'
        commit = "/api/models/own/x/commit/main"

        make_full(s3_endpoint, url, code)
        refused = [http.post(commit, content=lines), httpx.put(link["href"], content=large)]
        problem = problem_of(http.post("/v1/datasets", files={"file": ("a.jsonl", jsonl("text"))}), 507)
        assert problem["code"] == "storage_full"
        make_full(s3_endpoint, url, code, from_part=2)  # in the middle of a file
        refused.append(httpx.put(link["href"], content=large))
        assert [answer.status_code for answer in refused] == [507] * 3, [answer.text for answer in refused]
        assert all("full" in answer.json()["error"] for answer in refused)

        assert http.get("/v1/datasets").json()["items"] == []
        assert http.get("/api/models/own/x").json()["siblings"] == []
        assert uploads_under_way(s3_endpoint, url) == 0
        for staging in ("store/staging", "uploads/staging", "uploads/parts"):
            assert not (data / staging).is_dir() or not list((data / staging).iterdir()), staging
        assert http.get("/readyz").status_code == 200
        assert http.get(f"/{MODEL}/resolve/main/config.json").status_code == 200, "what is there can be read"

        make_full(s3_endpoint, url, None)
        assert httpx.put(link["href"], content=large).status_code == 200
        assert http.post(commit, content=lines).status_code == 200
        assert http.post("/v1/datasets", files={"file": ("a.jsonl", jsonl("text"))}).status_code == 201


def test_a_bucket_that_is_away_is_not_ready(s3_endpoint: str, tmp_path: Path) -> None:
    with running(settings_on(s3_endpoint, "s3://nowhere", tmp_path / "data")) as service:
        answer = service.http.get("/readyz")
        assert (answer.status_code, answer.json()["storage"]) == (503, "away")
        assert problem_of(service.http.post("/v1/jobs", json=JOB), 422)["code"] == "unknown_model"
