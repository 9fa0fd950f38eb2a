"""What the hub's routes work with; `create_app` makes it once."""

from dataclasses import dataclass
from pathlib import Path

from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session, sessionmaker

from app.hub import repository
from app.hub.errors import LinkExpired
from app.hub.uploads import Uploads
from app.hub.upstream.mirror import Mirror
from app.storage.blobs import Blob, BlobStore


@dataclass(frozen=True)
class HubContext:
    """Sessions, blobs and the settings that concern the hub."""

    read_sessions: sessionmaker[Session]
    """Never wait for SQLite's one writer."""
    sessions: sessionmaker[Session]
    store: BlobStore
    uploads: Uploads
    model_roots: tuple[Path, ...] = ()
    """Directories that models may be imported from."""
    public_url: str = ""
    """The service's address as clients see it; empty: taken from the request."""
    mirror: Mirror | None = None
    """Of the upstream hub, if there is one."""

    def note_upload(self, repo_id: int, blob: Blob) -> None:
        """Note that a writer of the repository has sent these bytes.

        Raises:
            LinkExpired: the repository was deleted meanwhile.
        """
        try:
            with self.sessions.begin() as session:
                repository.add_upload(session, repo_id, sha256=blob.sha256, size=blob.size, git_oid=blob.git_oid)
        except IntegrityError:
            raise LinkExpired from None
