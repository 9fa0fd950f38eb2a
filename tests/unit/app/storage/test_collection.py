"""The collection: what it takes, what it leaves, and that nobody who races it loses anything."""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, update
from sqlalchemy.orm import Session, sessionmaker

from app.auth.logins import Logins
from app.db.clock import db_now
from app.db.models import Base, BlobRow, CommitRow, DatasetRow, JobRow, RepoRow, UploadRow
from app.db.session import connect, session_factory
from app.hub import directory, repository
from app.hub.context import HubContext
from app.hub.errors import ContentMismatch
from app.hub.publishing import StagedFile, commit_files
from app.hub.uploads import Uploads
from app.jobs.states import State
from app.storage import register
from app.storage.blobs import Blob, BlobCollected, BlobStore
from app.storage.collection import Collection, collect
from app.storage.local import LocalBlobStore
from tests.conftest import postgres_database

Sessions = sessionmaker[Session]


@pytest.fixture(scope="module", params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def database(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sessions]:
    with ExitStack() as stack:
        if request.param == "postgres":
            url = stack.enter_context(postgres_database())
        else:
            url = f"sqlite:///{tmp_path_factory.mktemp('db') / 'test.db'}"
        engine = connect(url)
        Base.metadata.create_all(engine)
        yield session_factory(engine)
        engine.dispose()


@pytest.fixture
def sessions(database: Sessions) -> Sessions:
    empty(database)
    return database


@pytest.fixture
def store(sessions: Sessions, tmp_path: Path) -> LocalBlobStore:
    return LocalBlobStore(tmp_path / "store", register=register.register_in(sessions))


def empty(sessions: Sessions) -> None:
    with sessions.begin() as session:
        for table in reversed(Base.metadata.sorted_tables):
            session.execute(table.delete())


def publish(sessions: Sessions, blobs: list[Blob], repo: str = "team/model") -> None:
    files = [StagedFile(f"{blob.sha256}.bin", blob.size, blob.sha256, blob.git_oid) for blob in blobs]
    with sessions.begin() as session:
        commit_files(session, repo, files, "m")


def collect_now(sessions: Sessions, store: BlobStore) -> Collection:
    return collect(sessions, store, grace_seconds=0)


def job(sessions: Sessions, job_id: str, state: State) -> None:
    with sessions.begin() as session:
        session.add(JobRow(id=job_id, state=state, spec={}, model="m"))


def test_only_what_nothing_names_goes(sessions: Sessions, store: LocalBlobStore) -> None:
    named, data, loose = (store.put_bytes(content) for content in (b"named", b"data", b"loose!"))
    publish(sessions, [named])
    with sessions.begin() as session:
        row = DatasetRow(id="d", name="d", sha256=data.sha256, size=4, format="text", columns=[], rows=1)
        session.add(row)
    dry = collect(sessions, store, grace_seconds=0, dry_run=True)
    assert loose.sha256 in store, "a dry run removes nothing"
    assert collect_now(sessions, store) == dry == Collection(1, 6, 0)
    assert {sha256 for sha256, _ in store.blobs()} == {named.sha256, data.sha256}
    assert collect_now(sessions, store) == Collection(0, 0, 0)


def test_a_fresh_blob_stays_for_the_grace_by_the_databases_clock(sessions: Sessions, store: LocalBlobStore) -> None:
    blob = store.put_bytes(b"on its way")
    os.utime(store.local_path(blob.sha256), (0, 0))  # the disk's clock has no say
    assert collect(sessions, store, grace_seconds=60).blobs == 0
    with sessions.begin() as session:
        session.execute(update(BlobRow).values(touched_at=db_now(-61)))
    assert collect(sessions, store, grace_seconds=60).blobs == 1


def test_bytes_that_nobody_registered_get_the_grace_too(
    sessions: Sessions, store: LocalBlobStore, tmp_path: Path
) -> None:
    blob = LocalBlobStore(tmp_path / "store").put_bytes(b"from an older version")
    assert collect(sessions, store, grace_seconds=60).blobs == 0
    assert collect_now(sessions, store).blobs == 1
    assert blob.sha256 not in store


def test_a_running_job_keeps_its_model_when_the_repository_is_removed(
    sessions: Sessions, store: LocalBlobStore
) -> None:
    blob = store.put_bytes(b"model")
    publish(sessions, [blob])
    job(sessions, "job1", State.RUNNING)
    with sessions.begin() as session:
        register.hold_for_job(session, "job1", {blob.sha256: blob.size})
        session.execute(delete(CommitRow))
        session.execute(delete(RepoRow))
    assert collect_now(sessions, store).blobs == 0
    with sessions.begin() as session:
        session.execute(update(JobRow).values(state=State.SUCCEEDED))
    assert collect_now(sessions, store).blobs == 1


def test_publishing_what_was_collected_meanwhile_is_refused_and_storing_again_mends(
    sessions: Sessions, store: LocalBlobStore
) -> None:
    blob = store.put_bytes(b"slow publisher")
    assert collect_now(sessions, store).blobs == 1
    with pytest.raises(BlobCollected, match="store its file again"):
        publish(sessions, [blob])
    assert store.put_bytes(b"slow publisher") == blob
    publish(sessions, [blob])
    assert collect_now(sessions, store).blobs == 0
    assert blob.sha256 in store


class DyingError(Exception):
    pass


def test_a_collection_that_dies_between_condemning_and_removing_is_finished_by_the_next(
    sessions: Sessions, store: LocalBlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, lost = store.put_bytes(b"put again"), store.put_bytes(b"lost")

    def die(_sha256: str) -> None:
        raise DyingError

    with monkeypatch.context() as patch:
        patch.setattr(store, "remove", die)
        with pytest.raises(DyingError):
            collect_now(sessions, store)
    with pytest.raises(BlobCollected):
        publish(sessions, [kept])
    store.put_bytes(b"put again")
    assert collect(sessions, store, grace_seconds=60).blobs == 1
    assert (kept.sha256 in store, lost.sha256 in store) == (True, False)


CONTENTS = [bytes([number]) * (number + 1) for number in range(4)]
Commits = list[list[int]]


@settings(max_examples=12, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(
    publishers=st.lists(
        st.lists(st.lists(st.sampled_from(range(4)), min_size=1, max_size=3, unique=True), min_size=1, max_size=4),
        min_size=1,
        max_size=3,
    ),
    rounds=st.integers(1, 4),
)
def test_collections_that_race_publishers_and_uploads_lose_nothing(
    sessions: Sessions, tmp_path_factory: pytest.TempPathFactory, publishers: list[Commits], rounds: int
) -> None:
    """Without any grace: every file of every commit is there in the end, and whoever came too late was told."""
    empty(sessions)
    store = LocalBlobStore(tmp_path_factory.mktemp("store"), register=register.register_in(sessions))
    start = threading.Barrier(len(publishers) + 2)
    failures: list[BaseException] = []

    def run(work: list[int] | Commits, number: int) -> None:
        # Every other one goes the way of a client that uploads: what it has sent is noted, and named by a commit later.
        through = upload_until_through if number % 2 else publish_until_through
        try:
            start.wait()
            if number < 0:
                for _ in range(rounds):
                    collect_now(sessions, store)
                return
            for commit in work:
                through(sessions, store, [CONTENTS[i] for i in commit], f"team/{number}")  # type: ignore[union-attr]
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(work, number)) for number, work in enumerate(publishers)]
    threads += [threading.Thread(target=run, args=([], -1)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    with sessions() as session:
        named = {name for name, _ in register.named(session)}
    stored = {sha256 for sha256, _ in store.blobs()}
    assert named <= stored
    with sessions.begin() as session:
        session.execute(delete(UploadRow))
    collect_now(sessions, store)
    assert {sha256 for sha256, _ in store.blobs()} == named


def publish_until_through(sessions: Sessions, store: BlobStore, contents: list[bytes], repo: str) -> None:
    while True:
        blobs = [store.put_bytes(content) for content in contents]
        try:
            return publish(sessions, blobs, repo)
        except BlobCollected:
            continue


def upload_until_through(sessions: Sessions, store: BlobStore, contents: list[bytes], repo: str) -> None:
    """What a client and the routes do: ask what is here, send what is not, name all of it in a commit."""
    blobs = [Blob(sha256(content).hexdigest(), len(content), "0" * 40) for content in contents]
    with sessions.begin() as session:
        repo_id = directory.lock_or_create_repo(session, repo, directory.NewRepo()).id
    while True:
        with sessions() as session:
            held = repository.possessed(session, repo_id, [blob.sha256 for blob in blobs])
        for content, blob in zip(contents, blobs, strict=True):
            if blob.sha256 not in held:
                note_until_through(sessions, store, repo_id, content, blob)
        try:
            return publish(sessions, blobs, repo)
        except BlobCollected:
            continue


def note_until_through(sessions: Sessions, store: BlobStore, repo_id: int, content: bytes, blob: Blob) -> None:
    while True:
        store.put_bytes(content)
        try:
            with sessions.begin() as session:
                return repository.add_upload(session, repo_id, blob)
        except BlobCollected:
            continue


class OvertakenStore(LocalBlobStore):
    """A store whose first file is collected as soon as it is there, before anybody could note whose it is."""

    collecting: Callable[[], object] | None = None

    def put_file(self, path: Path) -> Blob:
        blob = super().put_file(path)
        collecting, self.collecting = self.collecting, None
        if collecting:
            collecting()
        return blob


def test_an_upload_that_a_collection_overtakes_is_stored_once_more(sessions: Sessions, tmp_path: Path) -> None:
    store = OvertakenStore(tmp_path / "store", register=register.register_in(sessions))
    store.collecting = lambda: collect_now(sessions, store)
    uploads = Uploads(tmp_path / "uploads", max_bytes=1 << 20)
    context = HubContext(sessions, sessions, store, uploads, Logins(tmp_path / "logins.key"))
    (tmp_path / "received").write_bytes(b"received")
    name = sha256(b"received").hexdigest()
    with sessions.begin() as session:
        repo_id = directory.lock_or_create_repo(session, "team/model", directory.NewRepo()).id
    context.keep_upload(repo_id, tmp_path / "received", name)
    with sessions() as session:
        held = repository.possessed(session, repo_id, [name])
    assert (name in held, name in store) == (True, True)
    publish(sessions, [Blob(name, held[name].size, held[name].git_oid)])
    with pytest.raises(ContentMismatch):
        context.keep_upload(repo_id, tmp_path / "received", "0" * 64)
