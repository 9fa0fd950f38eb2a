from concurrent.futures import ThreadPoolExecutor

from sqlalchemy.orm import Session, sessionmaker

from app.hub import catalog, repository
from app.hub.bundled import BUNDLED_REPO, import_bundled
from app.hub.revisions import repo_named, resolve
from app.storage.local import LocalBlobStore


def test_the_bundled_model_is_imported_at_the_first_start_only(
    sessions: sessionmaker[Session], store: LocalBlobStore
) -> None:
    first = import_bundled(sessions, store)
    assert first is not None
    assert import_bundled(sessions, store) is None
    with sessions() as session:
        assert catalog.revision_of(session, BUNDLED_REPO, "main").commit == first.oid


def test_two_processes_that_start_at_once_make_one_commit(
    sessions: sessionmaker[Session], store: LocalBlobStore
) -> None:
    with ThreadPoolExecutor(4) as threads:
        commits = list(threads.map(lambda _: import_bundled(sessions, store), range(4)))
    assert len({commit.oid for commit in commits if commit}) == 1
    with sessions() as session:
        head = resolve(session, repo_named(session, BUNDLED_REPO), "main")
        assert len(repository.history(session, head, limit=10)) == 1
