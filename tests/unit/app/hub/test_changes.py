import contextlib
import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.orm import Session, sessionmaker

from app.db.models import CommitRow
from app.hub import directory, repository
from app.hub.changes import Removed, apply, commit_changes, parse_line
from app.hub.errors import BadFile, BadRequest, EntryNotFound, HubError, RepositoryNotFound, StaleParent
from app.hub.objects import TreeFile
from app.hub.publishing import commit_files
from app.hub.revisions import repo_named, resolve
from app.storage.blobs import Blob

Sessions = sessionmaker[Session]
BASE = CommitRow(id=1, oid="0" * 40)


def file(path: str, content: str = "x") -> TreeFile:
    body = content.encode()
    return TreeFile(path, len(body), hashlib.sha256(body).hexdigest(), "0" * 40)


@pytest.fixture
def base(sessions: Sessions) -> CommitRow:
    with sessions.begin() as session:
        commit_files(session, "team/model", [file("a")], "m")
    return head(sessions)


def head(sessions: Sessions) -> CommitRow:
    with sessions() as session:
        return resolve(session, repo_named(session, "team/model"), "main")


def commit(sessions: Sessions, base: CommitRow, content: str) -> CommitRow:
    with sessions.begin() as session:
        after = [file("a", content)]
        return commit_changes(session, "team/model", "main", base, after, message="m", author="me", tags=["t"])


def test_a_branch_moves_only_from_what_the_commit_was_made_for(sessions: Sessions, base: CommitRow) -> None:
    first = commit(sessions, base, "1")
    with pytest.raises(StaleParent, match="refresh"):
        commit(sessions, base, "2")
    assert head(sessions).oid == first.oid
    assert commit(sessions, first, "2").parent == first.oid
    with sessions() as session:
        repo = repo_named(session, "team/model")
        assert directory.tags_of(session, [repo.id]) == {repo.id: ["t"]}


def test_of_commits_that_race_exactly_one_wins(sessions: Sessions, base: CommitRow) -> None:
    racers = 6
    barrier = Barrier(racers)

    def race(number: int) -> str | None:
        barrier.wait()
        try:
            return commit(sessions, base, str(number)).oid
        except StaleParent:
            return None

    with ThreadPoolExecutor(racers) as threads:
        won = [oid for oid in threads.map(race, range(racers)) if oid]
    assert won == [head(sessions).oid]
    with sessions() as session:
        assert len(repository.history(session, head(sessions), limit=10)) == 2


def test_a_repository_that_was_made_anew_is_another_one(sessions: Sessions, base: CommitRow) -> None:
    with sessions.begin() as session:
        directory.delete_repo(session, repo_named(session, "team/model"))
    with pytest.raises(RepositoryNotFound):
        commit(sessions, base, "1")
    with sessions.begin() as session:
        commit_files(session, "team/model", [file("b")], "m")
    with pytest.raises((RepositoryNotFound, StaleParent)):
        commit(sessions, base, "1")


def test_an_upload_is_possessed_by_its_repository_alone_until_it_is_forgotten(
    sessions: Sessions, base: CommitRow
) -> None:
    sha256 = "f" * 64
    with sessions.begin() as session:
        commit_files(session, "other/model", [file("b", "b")], "m")
        mine, other = repo_named(session, "team/model").id, repo_named(session, "other/model").id
        for _ in range(2):
            repository.add_upload(session, mine, Blob(sha256, 5, "0" * 40))
    with sessions() as session:
        held = hashlib.sha256(b"x").hexdigest()
        assert repository.possessed(session, mine, [sha256, held]).keys() == {sha256, held}
        assert repository.possessed(session, other, [sha256, held]) == {}
    with sessions.begin() as session:
        repository.forget_uploads(session, older_than_seconds=3600)
        assert repository.possessed(session, mine, [sha256])
        repository.forget_uploads(session, older_than_seconds=-1)
        assert repository.possessed(session, mine, [sha256, held]).keys() == {held}


PATHS = st.lists(st.sampled_from("abc"), min_size=1, max_size=3).map("/".join)
CHANGES = st.one_of(
    st.builds(file, PATHS, st.sampled_from("xyz")),
    st.builds(Removed, PATHS, folder=st.booleans()),
)


@given(before=st.lists(PATHS, unique=True, max_size=6), changes=st.lists(CHANGES, max_size=8))
def test_changes_leave_a_tree_or_are_refused_as_a_whole(before: list[str], changes: list[TreeFile | Removed]) -> None:
    files = [file(path) for path in before if not any(other.startswith(f"{path}/") for other in before)]
    try:
        after = apply("r", BASE, files, changes)
    except (EntryNotFound, BadFile):
        return
    paths = [entry.path for entry in after]
    assert paths == sorted(set(paths))
    assert not [path for path in paths if any(other.startswith(f"{path}/") for other in paths)]
    touched = {change.path for change in changes}
    for kept in files:
        if not any(kept.path == path or kept.path.startswith(f"{path}/") for path in touched):
            assert kept in after, "what no change names stays"
    last = {change.path: change for change in changes}
    for change in last.values():
        if isinstance(change, TreeFile) and changes[-1] is change:
            assert change in after


KEYS = st.sampled_from(["key", "value", "path", "content", "oid", "size", "summary", "parentCommit"])
VALUES = st.recursive(
    st.none() | st.integers() | st.text(max_size=8) | st.sampled_from(["header", "file", "lfsFile", "deletedFile"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=6),
    max_leaves=12,
)
ENTRIES = st.fixed_dictionaries(
    {"key": st.sampled_from(["header", "file", "lfsFile", "deletedFolder", "x"])}, optional={"value": VALUES}
)


@given(line=st.binary(max_size=200) | (VALUES | ENTRIES).map(lambda value: json.dumps(value).encode()))
def test_whatever_a_line_holds_it_is_parsed_or_refused(line: bytes) -> None:
    with contextlib.suppress(HubError):
        parse_line(line)


def test_a_message_with_a_nul_is_refused() -> None:
    with pytest.raises(BadRequest):
        parse_line(b'{"key": "header", "value": {"summary": "a\\u0000b"}}')
