"""What the hub's routes work with; `create_app` makes it once."""

from dataclasses import dataclass
from pathlib import Path

from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session, sessionmaker

from app.auth.logins import Logins
from app.hub import repository
from app.hub.errors import ContentMismatch, LinkExpired
from app.hub.uploads import Uploads
from app.hub.upstream.mirror import Mirror
from app.storage.blobs import BlobCollected, BlobStore


@dataclass(frozen=True)
class HubContext:
    """Sessions, blobs and the settings that concern the hub."""

    read_sessions: sessionmaker[Session]
    """Never wait for SQLite's one writer."""
    sessions: sessionmaker[Session]
    store: BlobStore
    uploads: Uploads
    logins: Logins
    """A person's browser fetches files of the hub with the login of the pages."""
    model_roots: tuple[Path, ...] = ()
    """Directories that models may be imported from."""
    public_url: str = ""
    """The service's address as clients see it; empty: taken from the request."""
    mirror: Mirror | None = None
    """Of the upstream hub, if there is one."""

    def keep_upload(self, repo_id: int, path: Path, sha256: str) -> None:
        """Give a received file to the store, and note that a writer of the repository has sent its bytes.

        Raises:
            ContentMismatch: the file has another sha256.
            LinkExpired: the repository was deleted meanwhile.
            StorageError: the store does not take it.
        """
        while True:
            blob = self.store.put_file(path)
            if blob.sha256 != sha256:
                raise ContentMismatch(sha256, blob.sha256)
            try:
                with self.sessions.begin() as session:
                    repository.add_upload(session, repo_id, blob)
            except IntegrityError:
                raise LinkExpired from None
            except BlobCollected:  # between the two: the file is still here
                continue
            return
