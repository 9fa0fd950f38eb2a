"""Objects of an S3 bucket below a prefix. S3 has no rename, but an object appears as a whole or not at all.

Credentials come from the standard AWS variables, which the client library reads by itself; none of them, and nothing
that the server says beyond its error code, ever becomes part of a message.
"""

import asyncio
import contextlib
import hashlib
import math
from collections.abc import Iterator
from datetime import timedelta
from email.utils import parsedate_to_datetime
from typing import Any, BinaryIO
from urllib.parse import urlsplit

import s3fs
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, PartialCredentialsError

from app.storage.blobs import StorageError, StorageFull, StoreRefused, StoreUnavailable

PART_BYTES = 16 << 20
"""Of a multipart upload, and what one upload holds in memory; larger only where 10,000 parts would not be enough."""

_MAX_PARTS = 10_000
_FULL = {"XMinioStorageFull", "QuotaExceeded", "XMinioAdminBucketQuotaExceeded", "InsufficientStorage", "507"}
_REFUSED = {
    "AccessDenied", "AccountProblem", "AllAccessDisabled", "ExpiredToken", "InvalidAccessKeyId", "InvalidSecurity",
    "InvalidToken", "RequestTimeTooSkewed", "SignatureDoesNotMatch", "401", "403", "Forbidden",
}  # fmt: skip
_MISSING = {"NoSuchKey", "404", "NotFound"}


class ContentChangedError(StorageError):
    """What was uploaded is not what the caller hashed; nothing of it is visible."""


class Bucket:
    """The objects below `s3://bucket/prefix`."""

    def __init__(self, url: str, *, endpoint_url: str | None = None) -> None:
        """Connect to nothing yet.

        Args:
            url: `s3://bucket/prefix`.
            endpoint_url: of a server other than AWS.
        """
        parts = urlsplit(url)
        self.url = url.rstrip("/")
        self._name = parts.netloc
        self._prefix = f"{path}/" if (path := parts.path.strip("/")) else ""
        self._endpoint = endpoint_url or "AWS"
        # Servers other than AWS are seldom set up for a host name per bucket.
        config: dict[str, Any] = {"connect_timeout": 5, "read_timeout": 60, "retries": {"max_attempts": 2}}
        if endpoint_url:
            config["s3"] = {"addressing_style": "path"}
        self._fs = s3fs.S3FileSystem(
            endpoint_url=endpoint_url, config_kwargs=config, skip_instance_cache=True, use_listings_cache=False
        )

    def put(self, key: str, content: bytes) -> None:
        """Write an object in one request.

        Raises:
            StorageFull, StoreRefused, StoreUnavailable: as their docstrings say.
        """
        self._call("put_object", key, Body=content, _bytes=len(content))

    def put_file(self, key: str, source: BinaryIO, *, size: int, sha256: str) -> None:
        """Write an object of `size` bytes, which are hashed once more on their way.

        Raises:
            ContentChangedError: the bytes have another sha256 or length; the upload has been aborted.
            StorageFull, StoreRefused, StoreUnavailable: as their docstrings say; the upload has been aborted.
        """
        part_bytes = max(PART_BYTES, math.ceil(size / _MAX_PARTS))
        digest = hashlib.sha256()
        first = source.read(part_bytes)
        digest.update(first)
        if size <= part_bytes:
            if len(first) != size or digest.hexdigest() != sha256 or source.read(1):
                raise ContentChangedError(key)
            self.put(key, first)
            return
        upload = self._call("create_multipart_upload", key, _bytes=size)["UploadId"]
        try:
            parts: list[dict[str, Any]] = []
            sent, part = 0, first
            while part:
                sent += len(part)
                number = len(parts) + 1
                answer = self._call("upload_part", key, UploadId=upload, PartNumber=number, Body=part, _bytes=size)
                parts.append({name: answer[name] for name in answer if name == "ETag" or name.startswith("Checksum")})
                parts[-1]["PartNumber"] = number
                part = source.read(part_bytes)
                digest.update(part)
                if sent + len(part) > size:
                    break
            if sent != size or part or digest.hexdigest() != sha256:
                raise ContentChangedError(key)
            for listed in parts:
                listed.pop("ChecksumType", None)
            self._call("complete_multipart_upload", key, UploadId=upload, MultipartUpload={"Parts": parts}, _bytes=size)
        except BaseException:
            self._abort(key, upload)
            raise

    def get(self, key: str, start: int, end: int) -> bytes:
        """Bytes `start` to `end` (exclusive) of an object, in one request.

        Raises:
            FileNotFoundError: there is no such object.
            StoreRefused, StoreUnavailable: as their docstrings say.
        """
        if start >= end:
            return b""
        try:
            content: bytes = self._fs.cat_file(self._path(key), start=start, end=end)
        except Exception as error:
            raise self._typed(error) from None
        if len(content) != end - start:
            raise StoreUnavailable(f"{self.url} sent {len(content)} of {end - start} bytes; try again in a moment.")
        return content

    def get_all(self, key: str) -> bytes:
        """A whole object, for small ones.

        Raises:
            FileNotFoundError, StoreRefused, StoreUnavailable: as get.
        """
        try:
            content: bytes = self._fs.cat_file(self._path(key))
        except Exception as error:
            raise self._typed(error) from None
        return content

    def size(self, key: str) -> int | None:
        """An object's length in bytes, or None where there is no such object."""
        try:
            return int(self._call("head_object", key)["ContentLength"])
        except FileNotFoundError:
            return None

    def keys(self, prefix: str) -> Iterator[tuple[str, int]]:
        """Key and length of every object whose key begins with `prefix`, page by page."""
        token: dict[str, Any] = {}
        while True:
            page = self._call("list_objects_v2", None, Prefix=self._prefix + prefix, **token)
            for entry in page.get("Contents", ()):
                yield entry["Key"].removeprefix(self._prefix), int(entry["Size"])
            if not page.get("IsTruncated"):
                return
            token = {"ContinuationToken": page["NextContinuationToken"]}

    def delete(self, key: str) -> None:
        """Remove an object, if it is there."""
        self._call("delete_object", key)

    def move(self, key: str, to: str) -> None:
        """Copy an object and remove the original.

        Raises:
            FileNotFoundError: there is no such object.
        """
        try:
            self._fs.cp_file(self._path(key), self._path(to))
        except Exception as error:
            raise self._typed(error) from None
        self.delete(key)

    def abort_uploads(self, *, older_than_seconds: float) -> int:
        """Give up the multipart uploads below the prefix that were begun so long ago, by the server's own clock."""
        answer = self._call("head_bucket", None)
        limit = parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"])
        limit -= timedelta(seconds=older_than_seconds)
        marker: dict[str, Any] = {}
        aborted = 0
        while True:
            page = self._call("list_multipart_uploads", None, Prefix=self._prefix, **marker)
            for upload in page.get("Uploads", ()):
                if upload["Initiated"] <= limit:
                    self._abort(upload["Key"].removeprefix(self._prefix), upload["UploadId"])
                    aborted += 1
            if not page.get("IsTruncated"):
                return aborted
            marker = {"KeyMarker": page["NextKeyMarker"], "UploadIdMarker": page["NextUploadIdMarker"]}

    def presign(self, key: str, *, seconds: int, **headers: str) -> str:
        """An address under which anybody may GET the object for so long; `headers` are the answer's (Response...)."""
        url: str = self._fs.url(self._path(key), expires=seconds, **headers)
        return url

    def check(self) -> None:
        """Look whether the bucket is there and lets us in.

        Raises:
            StoreRefused, StoreUnavailable: as their docstrings say.
        """
        self._call("head_bucket", None)

    def _path(self, key: str) -> str:
        return f"{self._name}/{self._prefix}{key}"

    def _abort(self, key: str, upload: str) -> None:
        with contextlib.suppress(StorageError, OSError):  # it is invisible, and the next collection tries again
            self._call("abort_multipart_upload", key, UploadId=upload)

    def _call(self, method: str, key: str | None, *, _bytes: int = 0, **arguments: Any) -> dict[str, Any]:
        named = {} if key is None else {"Key": self._prefix + key}
        try:
            answer: dict[str, Any] = self._fs.call_s3(method, Bucket=self._name, **named, **arguments)
        except Exception as error:
            raise self._typed(error, size=_bytes, about_bucket=key is None) from None
        return answer

    def _typed(self, error: Exception, *, size: int = 0, about_bucket: bool = False) -> Exception:
        """The error as ours. The server's own words stay out of it: they can quote what was sent."""
        cause = error if isinstance(error, ClientError) else error.__cause__
        code, status = "", 0
        if isinstance(cause, ClientError):
            code = str(cause.response.get("Error", {}).get("Code", ""))
            status = int(cause.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        if isinstance(error, NoCredentialsError | PartialCredentialsError):
            return StoreRefused(
                f"There are no credentials for {self.url}; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (or another "
                "standard source of AWS credentials) for the API and every worker."
            )
        if code in _FULL or status == 507:
            return StorageFull(self.url, needed=size, available=None)
        if code == "NoSuchBucket" or (about_bucket and (code in _MISSING or status == 404)):
            return StoreRefused(
                f"There is no bucket {self._name!r} at {self._endpoint}; make it, or look at STREAMLINE_STORE_URL and "
                "STREAMLINE_S3_ENDPOINT_URL."
            )
        if code in _MISSING or status == 404 or isinstance(error, FileNotFoundError):
            return FileNotFoundError(self.url)
        if code in _REFUSED or status in {401, 403} or isinstance(error, PermissionError):
            return StoreRefused(
                f"{self.url} refuses our credentials ({code or status or 'no permission'}). The key in "
                "AWS_ACCESS_KEY_ID needs s3:GetObject, s3:PutObject, s3:DeleteObject, s3:ListBucket and "
                "s3:AbortMultipartUpload there, and this machine's clock must be right."
            )
        if isinstance(error, OSError | BotoCoreError | ClientError | asyncio.TimeoutError | StorageError):
            return StoreUnavailable(
                f"{self.url} at {self._endpoint} does not answer as it should ({code or type(error).__name__}); look "
                "at the object store and its network, and try again."
            )
        return error
