"""Blobs and artefacts in an S3 bucket: `blobs/sha256/ab/cdef...` and `jobs/<job id>/...`.

An object is written under its content's own name, which is known before the first byte is sent. So nothing has to be
renamed, and a writer that is killed leaves at most a multipart upload that nobody sees and a collection aborts.
"""

import functools
import hashlib
import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote

from app.storage.artefacts import MANIFEST, ArtefactFile, ArtefactNotFound, check_job_id, check_name, parse_manifest
from app.storage.blobs import Blob, BlobNotFound, Register, SourceChanged, check_sha256, unregistered
from app.storage.bucket import Bucket, ContentChangedError
from app.storage.cache import BlobCache, place
from app.storage.ranged_file import RangedFile
from app.storage.staging import collect_abandoned

_CHUNK_BYTES = 1 << 20
_READ_BYTES = 8 << 20  # one request each: large enough that a round trip costs little
_ROOT = "blobs/sha256/"

ABANDONED_SECONDS = 24 * 3600.0
"""A multipart upload that was begun so long ago is taken for a dead writer's."""


class S3BlobStore:
    """Content-addressed objects of a bucket (see BlobStore)."""

    def __init__(
        self,
        bucket: Bucket,
        cache: BlobCache,
        staging: Path,
        *,
        register: Register = unregistered,
        presigned_seconds: int = 0,
        abandoned_seconds: float = ABANDONED_SECONDS,
    ) -> None:
        """Use the bucket.

        Args:
            bucket: where the blobs lie.
            cache: where they are files of this machine.
            staging: a local directory for uploads on their way, made if it is missing.
            register: told of every blob that is put.
            presigned_seconds: how long clients may fetch a blob by themselves; 0: never.
            abandoned_seconds: see ABANDONED_SECONDS.
        """
        self._bucket = bucket
        self._cache = cache
        self._register = register
        self._presigned_seconds = presigned_seconds
        self._abandoned_seconds = abandoned_seconds
        self.staging = staging
        staging.mkdir(parents=True, exist_ok=True)

    def put_file(self, path: Path) -> Blob:
        """Hash the file, then upload it under its hash, which is checked once more on the way (see BlobStore)."""
        with path.open("rb") as source:
            blob = _hashed(source, path)
            self._register(blob)
            if blob.sha256 not in self:
                source.seek(0)
                try:
                    self._bucket.put_file(_key(blob.sha256), source, size=blob.size, sha256=blob.sha256)
                except ContentChangedError:
                    raise SourceChanged(path) from None
        return blob

    def put_bytes(self, content: bytes) -> Blob:
        """Store these bytes (see BlobStore)."""
        source = io.BytesIO(content)
        blob = _hashed(source, self.staging)
        self._register(blob)
        if blob.sha256 not in self:
            source.seek(0)
            self._bucket.put_file(_key(blob.sha256), source, size=blob.size, sha256=blob.sha256)
        return blob

    def open(self, sha256: str) -> BinaryIO:
        """The blob from its first byte (see BlobStore)."""
        read = functools.partial(self._read_once, sha256)
        return io.BufferedReader(RangedFile(read, self.size(sha256)), _CHUNK_BYTES)

    def read(self, sha256: str, start: int, end: int) -> Iterator[bytes]:
        """A part of the blob in pieces (see BlobStore)."""
        end = min(end, self.size(sha256))
        return (self._read_once(sha256, at, min(at + _READ_BYTES, end)) for at in range(start, end, _READ_BYTES))

    def _read_once(self, sha256: str, start: int, end: int) -> bytes:
        try:
            return self._bucket.get(_key(sha256), start, end)
        except FileNotFoundError:
            raise BlobNotFound(sha256) from None

    def size(self, sha256: str) -> int:
        """The blob's length in bytes (see BlobStore)."""
        size = self._bucket.size(_key(sha256))
        if size is None:
            raise BlobNotFound(sha256)
        return size

    def direct_path(self, sha256: str) -> None:
        """None: the bytes have to be read through the store (see BlobStore).

        Raises:
            BlobNotFound: there is no such blob.
        """
        self.size(sha256)

    def presigned_url(self, sha256: str, *, filename: str, media_type: str) -> str | None:
        """An address of the bucket's own server, where the settings allow it (see BlobStore)."""
        if not self._presigned_seconds:
            return None
        return self._bucket.presign(
            _key(sha256),
            seconds=self._presigned_seconds,
            ResponseContentType=media_type,
            ResponseContentDisposition=f"attachment; filename*=UTF-8''{quote(filename, safe='')}",
        )

    def local_path(self, sha256: str) -> Path:
        """The blob's file in the cache (see BlobStore)."""
        return self._cache.fetch(sha256, self.size(sha256), lambda start, end: self.read(sha256, start, end))

    def place(self, sha256: str, at: Path) -> None:
        """Make `at` one more name of the cached file (see BlobStore)."""
        place(self.local_path(sha256), at)

    def blobs(self) -> Iterator[tuple[str, int]]:
        """Every blob's sha256 and length (see BlobStore)."""
        for key, size in self._bucket.keys(_ROOT):
            yield key.removeprefix(_ROOT).replace("/", ""), size

    def remove(self, sha256: str) -> None:
        """Remove the blob (see BlobStore)."""
        self._bucket.delete(_key(sha256))

    def set_aside(self, sha256: str) -> str:
        """Move a damaged blob to `aside/` (see BlobStore)."""
        aside = f"aside/{check_sha256(sha256)}"
        self._bucket.move(_key(sha256), aside)
        return f"{self._bucket.url}/{aside}"

    def collect_abandoned(self) -> int:
        """Abort old multipart uploads, and remove dead writers' local staging files (see BlobStore)."""
        return collect_abandoned(self.staging) + self._bucket.abort_uploads(older_than_seconds=self._abandoned_seconds)

    def check(self) -> None:
        """Look whether the bucket lets us in (see BlobStore)."""
        self._bucket.check()

    def __contains__(self, sha256: str) -> bool:
        return self._bucket.size(_key(sha256)) is not None


class S3ArtefactStore:
    """Artefacts under `jobs/<job id>/<sha256>`, and their manifest, whose one write shows the whole set."""

    def __init__(self, bucket: Bucket, cache: BlobCache) -> None:
        """Use the bucket, and the cache for artefacts as files."""
        self._bucket = bucket
        self._cache = cache

    def collect_abandoned(self) -> int:
        """0: the blob store's collection aborts every upload of the bucket."""
        return 0

    def write(self, job_id: str, files: Mapping[str, Path]) -> dict[str, ArtefactFile]:
        """Upload `files`, then the manifest, then remove what the new set does not name (see ArtefactStore)."""
        root = f"jobs/{check_job_id(job_id)}/"
        manifest = {}
        for name, path in sorted((str(check_name(name)), path) for name, path in files.items()):
            with path.open("rb") as source:
                blob = _hashed(source, path)
                source.seek(0)
                try:
                    self._bucket.put_file(f"{root}{blob.sha256}", source, size=blob.size, sha256=blob.sha256)
                except ContentChangedError:
                    raise SourceChanged(path) from None
            manifest[name] = ArtefactFile(blob.size, blob.sha256)
        text = json.dumps({name: asdict(file) for name, file in manifest.items()}, indent=1, sort_keys=True)
        self._bucket.put(root + MANIFEST, text.encode())
        named = {MANIFEST, *(file.sha256 for file in manifest.values())}
        for key, _ in list(self._bucket.keys(root)):
            if key.removeprefix(root) not in named:
                self._bucket.delete(key)
        return manifest

    def manifest(self, job_id: str) -> dict[str, ArtefactFile]:
        """The job's files by name (see ArtefactStore)."""
        try:
            return parse_manifest(self._bucket.get_all(f"jobs/{check_job_id(job_id)}/{MANIFEST}"))
        except FileNotFoundError:
            return {}

    def path(self, job_id: str, name: str) -> Path:
        """The artefact's file in the cache (see ArtefactStore)."""
        key, entry = self._entry(job_id, name)

        def read(start: int, end: int) -> Iterator[bytes]:
            return (self._bucket.get(key, at, min(at + _READ_BYTES, end)) for at in range(start, end, _READ_BYTES))

        try:
            return self._cache.fetch(entry.sha256, entry.size, read)
        except FileNotFoundError:
            raise ArtefactNotFound(job_id, name) from None

    def open(self, job_id: str, name: str) -> BinaryIO:
        """The artefact from its first byte, past the cache (see ArtefactStore)."""
        key, _ = self._entry(job_id, name)
        size = self._bucket.size(key)
        if size is None:
            raise ArtefactNotFound(job_id, name)
        return io.BufferedReader(RangedFile(functools.partial(self._bucket.get, key), size), _CHUNK_BYTES)

    def _entry(self, job_id: str, name: str) -> tuple[str, ArtefactFile]:
        entry = self.manifest(job_id).get(name)
        if entry is None:
            raise ArtefactNotFound(job_id, name)
        return f"jobs/{job_id}/{entry.sha256}", entry

    def jobs(self) -> Iterator[str]:
        """Every job with a complete set (see ArtefactStore)."""
        for key, _ in self._bucket.keys("jobs/"):
            if key.endswith(f"/{MANIFEST}"):
                yield key.split("/")[1]


def _key(sha256: str) -> str:
    check_sha256(sha256)
    return f"{_ROOT}{sha256[:2]}/{sha256[2:]}"


def _hashed(source: BinaryIO, name: Path) -> Blob:
    """The blob that the whole source makes.

    Raises:
        SourceChanged: its length changed while it was read.
    """
    size = source.seek(0, io.SEEK_END)
    source.seek(0)
    sha256 = hashlib.sha256()
    git = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    read = 0
    while read <= size and (chunk := source.read(_CHUNK_BYTES)):  # it may go on growing for ever
        read += len(chunk)
        sha256.update(chunk)
        git.update(chunk)
    if read != size:  # git's name begins with the length, so it would name other bytes
        raise SourceChanged(name)
    return Blob(sha256.hexdigest(), size, git.hexdigest())
