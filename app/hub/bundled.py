"""The model that comes with the service, so that a fresh start has something to compress."""

from pathlib import Path

from sqlalchemy.orm import Session, sessionmaker

import app.bundled
from app.hub import directory
from app.hub.importing import import_directory
from app.hub.publishing import Commit
from app.storage.blobs import BlobStore

BUNDLED_REPO = "demo/stories-24l"
BUNDLED_DIRECTORY = Path(app.bundled.__file__).parent / "stories-24l"


def import_bundled(sessions: sessionmaker[Session], store: BlobStore) -> Commit | None:
    """Publish the bundled model at the first start; returns None where its repository is there already.

    Call it where transactions end (it begins and commits its own). Two processes that start at once make one commit.
    """
    with sessions() as session:
        if directory.find_repo(session, BUNDLED_REPO) is not None:
            return None
    with sessions.begin() as session:
        message = f"Import {BUNDLED_REPO}\n\nThe model that comes with the service."
        return import_directory(session, store, BUNDLED_DIRECTORY, BUNDLED_REPO, message=message).commit
