"""Have a revision of the upstream hub here: its names, its small files, and where its large ones are to be had.

A copy is pinned: the commit keeps its own name and never changes; only its branches follow those of the upstream hub,
when somebody asks for them. Repositories of our own win over those of the same name there.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import structlog
from sqlalchemy.orm import Session, sessionmaker

from app.core.safetensors_file import PICKLES
from app.hub.access import Caller
from app.hub.card import model_tags, read_card
from app.hub.errors import (
    BadName,
    GatedRepository,
    HubError,
    PickledWeights,
    RepositoryNotFound,
    RevisionNotFound,
    UpstreamDamaged,
    UpstreamLoop,
    UpstreamRefused,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from app.hub.names import check_path, check_ref_name, check_repo_name, is_commit, taken_twice
from app.hub.objects import TreeFile
from app.hub.repository import RefKind
from app.hub.revisions import DEFAULT_BRANCH, SHORTEST_PREFIX
from app.hub.upstream import ring, rows
from app.hub.upstream.remote import RemoteFile, RemoteHub, RemoteRevision
from app.hub.upstream.rows import Known
from app.storage.blobs import BlobStore
from app.storage.staging import locked_file, require_space, staged_file

_REMEMBERED = 10_000
"""Answers that are kept in mind."""
_LOCKS = 64
_LOOKUPS_AT_ONCE = 8
_FILES_AT_ONCE = 4
_PATIENCE_SECONDS = 30.0
_DOWN_SECONDS = 5.0
"""For how long a hub that did not answer is not asked again."""
_LOCAL = Caller()
_UNKNOWN_OID = "0" * 40
"""Git's name for the content of a large file: clients know those by their sha256 alone."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Question:
    """What the upstream hub is asked, and for whom: who may not know of a repository learns nothing of who may."""

    name: str
    revision: str
    close: bool
    """For somebody who knows of the repository, or would if it were here."""


@dataclass(frozen=True, slots=True)
class _Answer:
    """What the upstream hub has said to a question."""

    at: float
    refused: HubError | None
    """What to say again; None where the copy, or its absence, says it."""


class Mirror:
    """Copies revisions of one upstream hub, for any number of threads and processes."""

    def __init__(
        self,
        hub: RemoteHub,
        sessions: sessionmaker[Session],
        read_sessions: sessionmaker[Session],
        store: BlobStore,
        directory: Path,
        *,
        max_bytes: int,
        fresh_seconds: float,
    ) -> None:
        """Ask nothing yet.

        Args:
            hub: the upstream.
            sessions: for what is shown.
            read_sessions: never wait for SQLite's one writer.
            store: where bytes go; not one that asks the upstream itself.
            directory: for locks; shared by all processes of the service.
            max_bytes: largest revision that is copied.
            fresh_seconds: for how long an answer is not asked for again.
        """
        self._hub = hub
        self._sessions = sessions
        self._read_sessions = read_sessions
        self._store = store
        self._locks_dir = directory / "pins"
        self._locks_dir.mkdir(parents=True, exist_ok=True)
        self._max_bytes = max_bytes
        self._fresh_seconds = fresh_seconds
        self._answers: OrderedDict[_Question, _Answer] = OrderedDict()
        self._guard = threading.Lock()
        self._locks = [threading.Lock() for _ in range(_LOCKS)]
        self._lookups = threading.BoundedSemaphore(_LOOKUPS_AT_ONCE)
        self._down_until = 0.0

    def ensure(self, name: str, revision: str | None = None, *, who: Caller = _LOCAL) -> None:
        """Have the revision (default: `main`) here, if the upstream hub has it and no repository of ours has the name.

        Of a repository that `who` may not know of, it goes on as if there were none: an upstream that is down, or
        refuses something, must not tell the two apart.

        Raises:
            UpstreamUnavailable: the upstream does not answer, and nothing has been copied before.
            UpstreamLoop: the upstream is this very service.
            UpstreamRefused, UpstreamDamaged: it has what is not copied.
            GatedRepository: it does not let this service's token in.
            StorageError: there is no room.
        """
        revision = revision or DEFAULT_BRANCH
        try:
            check_repo_name(name)
            if not is_commit(revision):
                check_ref_name(revision)
        except BadName:
            return
        if not who.may_read:
            return
        if self._is_settled(*self._asked(name, revision, who)) or not ring.goes_on(self._hub.asker, who.via):
            return
        with self._one_asks(name, revision):
            question, found = self._asked(name, revision, who)
            if self._is_settled(question, found):
                return
            try:
                self._look_up(question, found, who)
            except UpstreamUnavailable as error:
                if found.commit is None or found.hidden:
                    raise
                log.warning("upstream_stale", repo=name, revision=revision, error=str(error))
            else:
                self._remember(question, None)

    def close(self) -> None:
        """Let go of the connections to the upstream hub."""
        self._hub.close()

    def _asked(self, name: str, revision: str, who: Caller) -> tuple[_Question, Known]:
        with self._read_sessions() as session:
            found = rows.known(session, name, revision, who)
        return _Question(name, revision, who.sees_all or (found.exists and not found.hidden)), found

    def _is_settled(self, question: _Question, found: Known) -> bool:
        """Whether there is nothing to ask: our own, another hub's, a commit that is here, a fresh answer."""
        pinned = found.commit is not None and is_commit(question.revision)
        if not found.hidden and (self._is_others(found) or pinned):
            return True
        answer = self._answers.get(question)
        if answer is None or time.monotonic() - answer.at >= self._fresh_seconds:
            return False
        if answer.refused is not None:
            raise answer.refused.with_traceback(None)  # or its traceback would grow with every time
        return True

    def _is_others(self, found: Known) -> bool:
        return found.exists and found.upstream != self._hub.url

    def _remember(self, question: _Question, refused: HubError | None) -> None:
        with self._guard:
            self._answers[question] = _Answer(time.monotonic(), refused)
            self._answers.move_to_end(question)
            while len(self._answers) > _REMEMBERED:
                self._answers.popitem(last=False)

    @contextmanager
    def _one_asks(self, name: str, revision: str) -> Iterator[None]:
        """One look-up of a name at a time, and few of all names: a hub that hangs must not hold every thread."""
        lock = self._locks[hash((name, revision)) % _LOCKS]
        if not lock.acquire(timeout=_PATIENCE_SECONDS):
            raise UpstreamTimeout("takes long to answer others who ask the same")
        try:
            if not self._lookups.acquire(timeout=_PATIENCE_SECONDS):
                raise UpstreamTimeout("is being asked too much")
            try:
                yield
            finally:
                self._lookups.release()
        finally:
            lock.release()

    def _look_up(self, question: _Question, found: Known, who: Caller) -> None:
        name, revision = question.name, question.revision
        if time.monotonic() < self._down_until:
            raise UpstreamUnavailable("did not answer a moment ago")
        try:
            remote = self._hub.revision(name, revision, via=who.via)
            if self._is_others(found):
                return  # asked only because who asks may not know
            try:
                self._copy(name, revision, remote)
            except (UpstreamRefused, UpstreamDamaged):
                if question.close or not remote.private:
                    raise
                log.info("upstream_refused_in_silence", repo=name)  # it would tell that a private one is there
        except RepositoryNotFound:  # a copy of what has been there goes on being served
            log.info("upstream_has_not", repo=name)
        except RevisionNotFound:
            with self._sessions.begin() as session:
                rows.forget_ref(session, name, revision)
            # A copy of another revision says that the repository is there, and for whom.
            if revision != DEFAULT_BRANCH and not found.exists:
                self._look_up(replace(question, revision=DEFAULT_BRANCH), found, who)
        except (UpstreamRefused, GatedRepository, UpstreamLoop) as error:
            self._remember(question, error)
            raise
        except UpstreamUnavailable:
            self._down_until = time.monotonic() + min(_DOWN_SECONDS, self._fresh_seconds)
            raise

    def _copy(self, name: str, revision: str, remote: RemoteRevision) -> None:
        with locked_file(self._locks_dir / remote.commit):  # of several processes one copies
            with self._read_sessions() as session:
                copied = rows.copied_files(session, name, remote.commit)
            files = self._fetch_small(name, remote.commit) if copied is None else copied
            kind = self._kind(name, revision, remote.commit)
            tags = model_tags(files, read_card(self._store, files))
            with self._sessions.begin() as session:
                repo = rows.copy_of(session, name, self._hub.url, private=remote.private, gated=remote.gated)
                if repo is None:
                    return
                rows.add_copy(session, repo, remote.commit, files)
                if kind is not None:
                    rows.point(session, repo, kind, revision, remote.commit, tags)
            (self._locks_dir / remote.commit).unlink(missing_ok=True)
        if copied is None:
            log.info("copied", repo=name, commit=remote.commit, files=len(files))

    def _kind(self, name: str, revision: str, commit: str) -> RefKind | None:
        if len(revision) >= SHORTEST_PREFIX and commit.startswith(revision):
            return None
        if revision == DEFAULT_BRANCH:
            return "branch"
        return "tag" if self._hub.kind_of(name, revision) == "tag" else "branch"

    def _fetch_small(self, name: str, commit: str) -> list[TreeFile]:
        """Every file of the commit that is copied; the small ones are in the store."""
        found = self._admissible(name, self._hub.files(name, commit))
        total = sum(file.size for file in found)
        if total > self._max_bytes:
            raise UpstreamRefused(
                f"{name} has {total:,} bytes; at most {self._max_bytes:,} are fetched (STREAMLINE_UPSTREAM_MAX_BYTES)."
            )
        require_space(self._store.staging, sum(file.size for file in found if not self._has(file)))
        with ThreadPoolExecutor(_FILES_AT_ONCE) as pool:
            return list(pool.map(lambda file: self._entry(name, commit, file), found))

    def _admissible(self, name: str, files: Sequence[RemoteFile]) -> list[RemoteFile]:
        left_out = [file.path for file in files if PurePosixPath(file.path).suffix.lower() in PICKLES]
        kept = [file for file in files if PurePosixPath(file.path).suffix.lower() not in PICKLES]
        if left_out and not any(file.path.endswith((".safetensors", ".gguf")) for file in kept):
            raise PickledWeights(name, left_out[0])
        for file in kept:
            try:
                check_path(file.path)
            except BadName as error:
                raise UpstreamRefused(f"{name} is not fetched: {error}") from None
        if twice := taken_twice(file.path for file in kept):
            raise UpstreamRefused(f"{name} is not fetched: {twice!r} would be two files, or a file and a folder.")
        return kept

    def _has(self, file: RemoteFile) -> bool:
        return file.sha256 is not None and file.sha256 in self._store

    def _entry(self, name: str, commit: str, file: RemoteFile) -> TreeFile:
        if file.sha256 is not None and TreeFile(file.path, file.size, file.sha256, "").is_large:
            return TreeFile(file.path, file.size, file.sha256, _UNKNOWN_OID)
        with staged_file(self._store.staging, needed=file.size) as (path, target):
            with self._hub.stream(name, commit, file.path, 0, file.size) as pieces:
                for piece in pieces:
                    target.write(piece)
            target.flush()
            blob = self._store.put_file(path)
        if blob.size != file.size:
            raise UpstreamUnavailable("ends a file too early")
        if blob.sha256 != file.sha256 if file.sha256 else blob.git_oid != file.git_oid:
            raise UpstreamDamaged(name, file.path)
        return TreeFile(file.path, blob.size, blob.sha256, blob.git_oid)
