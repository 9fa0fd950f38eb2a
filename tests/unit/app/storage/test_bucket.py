import io
import logging
import os
import uuid
from pathlib import Path

import httpx
import pytest

from app.storage.blobs import StorageFull, StoreRefused, StoreUnavailable
from app.storage.bucket import PART_BYTES, Bucket, ContentChangedError
from app.storage.cache import BlobCache
from app.storage.s3 import S3BlobStore
from tests.ports import unused_port
from tests.s3_server import SECRET_KEY, make_bucket


@pytest.fixture
def bucket(s3_endpoint: str) -> Bucket:
    return Bucket(make_bucket(s3_endpoint, f"b-{uuid.uuid4().hex}") + "/some/prefix", endpoint_url=s3_endpoint)


def store_on(url: str, endpoint: str, tmp_path: Path) -> S3BlobStore:
    cache = BlobCache(tmp_path / "cache", budget_bytes=1 << 20)
    return S3BlobStore(Bucket(url, endpoint_url=endpoint), cache, tmp_path / "staging")


def test_a_full_bucket_says_so_and_what_to_do(s3_endpoint: str, tmp_path: Path) -> None:
    store = store_on(make_bucket(s3_endpoint, f"full-{uuid.uuid4().hex}"), s3_endpoint, tmp_path)
    for content in (b"small", bytes(PART_BYTES + 1)):
        with pytest.raises(StorageFull, match="quota") as caught:
            store.put_bytes(content)
        assert caught.value.needed == len(content)
    assert list(store.blobs()) == []


def test_refused_credentials_say_so_without_what_the_server_quotes(
    s3_endpoint: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    url = make_bucket(s3_endpoint, f"refused-{uuid.uuid4().hex}")
    for refused in (
        lambda: store_on(url, s3_endpoint, tmp_path).put_bytes(b"x"),
        lambda: Bucket(url, endpoint_url=s3_endpoint).put("key", b"x"),
    ):
        with pytest.raises(StoreRefused, match="AWS_ACCESS_KEY_ID") as caught:
            refused()
        for said in (str(caught.value), caplog.text):
            assert "Signature=" not in said
            assert SECRET_KEY not in said
        assert caught.value.__cause__ is None


def test_missing_credentials_and_a_missing_bucket_are_told_apart(
    s3_endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(StoreRefused, match="There is no bucket 'nowhere'"):
        store_on("s3://nowhere", s3_endpoint, tmp_path).check()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(StoreRefused, match="There are no credentials"):
        store_on("s3://nowhere", s3_endpoint, tmp_path).check()


def test_a_server_that_is_away_is_unavailable(s3_endpoint: str, tmp_path: Path) -> None:
    assert s3_endpoint
    away = store_on("s3://bucket", f"http://127.0.0.1:{unused_port()}", tmp_path)
    with pytest.raises(StoreUnavailable, match="try again"):
        away.check()


def test_an_upload_of_other_bytes_than_were_hashed_is_aborted(bucket: Bucket) -> None:
    for size in (10, PART_BYTES + 1):
        with pytest.raises(ContentChangedError):
            bucket.put_file("key", io.BytesIO(os.urandom(size)), size=size, sha256="0" * 64)
        with pytest.raises(ContentChangedError):
            bucket.put_file("key", io.BytesIO(bytes(size + 1)), size=size, sha256="0" * 64)
    assert list(bucket.keys("")) == []
    assert bucket.abort_uploads(older_than_seconds=0) == 0, "none was left behind"


def test_only_uploads_that_were_begun_long_ago_are_aborted(bucket: Bucket) -> None:
    bucket._call("create_multipart_upload", "living")
    assert bucket.abort_uploads(older_than_seconds=3600) == 0
    assert bucket.abort_uploads(older_than_seconds=-5) == 1


def test_another_prefix_of_the_bucket_is_not_ours(bucket: Bucket, s3_endpoint: str) -> None:
    other = Bucket(bucket.url.replace("some/prefix", "some/prefix-2"), endpoint_url=s3_endpoint)
    bucket.put("mine", b"1")
    other.put("theirs", b"2")
    other._call("create_multipart_upload", "theirs-too")
    assert list(bucket.keys("")) == [("mine", 1)]
    assert bucket.abort_uploads(older_than_seconds=-5) == 0


def test_a_presigned_address_serves_ranges_under_the_files_name(
    s3_endpoint: str, bucket: Bucket, tmp_path: Path
) -> None:
    store = S3BlobStore(bucket, BlobCache(tmp_path, budget_bytes=0), tmp_path / "s", presigned_seconds=60)
    sha256 = store.put_bytes(b"0123456789").sha256
    url = store.presigned_url(sha256, filename="modèle.bin", media_type="text/plain")
    assert url is not None
    assert SECRET_KEY not in url
    answer = httpx.get(url, headers={"Range": "bytes=2-4"})
    assert (answer.status_code, answer.content) == (206, b"234")
