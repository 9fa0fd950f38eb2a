"""Both kinds of store behind one set of fixtures: a directory, and a bucket of a real S3 server."""

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from app.storage.artefacts import ArtefactStore, LocalArtefactStore
from app.storage.blobs import BlobStore, Register, unregistered
from app.storage.bucket import Bucket
from app.storage.cache import BlobCache
from app.storage.local import LocalBlobStore
from app.storage.s3 import S3ArtefactStore, S3BlobStore
from tests.s3_server import make_bucket


@dataclass(frozen=True)
class Place:
    """Where a store's bytes lie, told apart from the store so that another process can open it too."""

    kind: str
    url: str
    """Directory, or s3:// URL."""
    endpoint: str
    local: Path
    """Cache and staging of a bucket's store."""

    def blobs(self, register: Register = unregistered) -> BlobStore:
        if self.kind == "local":
            return LocalBlobStore(Path(self.url), register=register)
        staging = self.local / "staging"
        return S3BlobStore(self.bucket(), self.cache(), staging, register=register, abandoned_seconds=0)

    def artefacts(self) -> ArtefactStore:
        if self.kind == "local":
            return LocalArtefactStore(Path(self.url))
        return S3ArtefactStore(self.bucket(), self.cache())

    def bucket(self) -> Bucket:
        return Bucket(self.url, endpoint_url=self.endpoint)

    def cache(self) -> BlobCache:
        return BlobCache(self.local / "cache", budget_bytes=1 << 30)

    def damage(self, sha256: str, content: bytes) -> None:
        """Put other bytes under the blob's name, behind the store's back."""
        key = f"blobs/sha256/{sha256[:2]}/{sha256[2:]}"
        if self.kind == "s3":
            self.bucket().put(key, content)
            return
        path = Path(self.url) / key
        path.chmod(0o644)
        path.write_bytes(content)

    def names(self) -> list[str]:
        """Everything that lies there, finished or not."""
        if self.kind == "s3":
            return sorted(key for key, _ in self.bucket().keys(""))
        root = Path(self.url)
        return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())


@pytest.fixture(params=["local", "s3"])
def new_place(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Place]:
    """Makes an empty place, as many as are asked for."""
    endpoint = request.getfixturevalue("s3_endpoint") if request.param == "s3" else ""

    def make() -> Place:
        local = tmp_path / uuid.uuid4().hex
        url = f"{make_bucket(endpoint, f'test-{local.name}')}/a/prefix" if endpoint else str(local / "store")
        return Place(request.param, url, endpoint, local)

    return make


@pytest.fixture
def place(new_place: Callable[[], Place]) -> Place:
    return new_place()


@pytest.fixture
def store(place: Place) -> BlobStore:
    return place.blobs()


@pytest.fixture
def artefacts(place: Place) -> ArtefactStore:
    return place.artefacts()
