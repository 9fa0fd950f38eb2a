"""What the hub's routes work with; `create_app` makes it once."""

from dataclasses import dataclass
from pathlib import Path

from sqlalchemy.orm import Session, sessionmaker

from app.hub.uploads import Uploads
from app.storage.blobs import BlobStore


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
