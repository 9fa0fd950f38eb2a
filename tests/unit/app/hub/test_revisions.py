from typing import Any

import pytest
from sqlalchemy.orm import Session, sessionmaker

from app.hub import directory, repository
from app.hub.directory import Behind
from app.hub.errors import EntryNotFound, RepositoryNotFound, RevisionNotFound
from app.hub.publishing import StagedFile, commit_files
from app.hub.revisions import file_at, repo_named, resolve
from app.storage.local import LocalBlobStore

Sessions = sessionmaker[Session]


@pytest.fixture
def commit(sessions: Sessions, store: LocalBlobStore) -> str:
    blob = store.put_bytes(b"x")
    with sessions.begin() as session:
        files = [StagedFile(name, blob.size, blob.sha256, blob.git_oid) for name in ("a/x.txt", "B.txt", "a-b.txt")]
        return commit_files(session, "team/model", files, "m").oid


@pytest.mark.parametrize("revision", ["", "nope", "\0", "a\0b", "../main", "%", "0" * 40, "0" * 7, "x" * 10_000])
def test_what_names_no_revision_is_not_found(sessions: Sessions, commit: str, revision: str) -> None:
    with sessions() as session, pytest.raises(RevisionNotFound):
        resolve(session, repo_named(session, "team/model"), revision)


@pytest.mark.parametrize("name", ["", "nope", "\0", "team/mod%", "team/model\0", "x" * 10_000])
def test_what_names_no_repository_is_not_found(sessions: Sessions, commit: str, name: str) -> None:
    with sessions() as session, pytest.raises(RepositoryNotFound):
        repo_named(session, name)


@pytest.mark.parametrize("path", ["", "nope", "\0", "a", "a/", "/B.txt", "a/../B.txt", "x" * 10_000])
def test_what_names_no_file_is_not_found(sessions: Sessions, commit: str, path: str) -> None:
    with sessions() as session:
        repo = repo_named(session, "team/model")
        with pytest.raises(EntryNotFound) as caught:
            file_at(session, repo, resolve(session, repo, "main"), path)
    assert caught.value.commit == commit


def test_files_come_in_the_same_order_from_every_database(sessions: Sessions, commit: str) -> None:
    with sessions() as session:
        row = resolve(session, repo_named(session, "team/model"), commit)
        assert [file.path for file in repository.files(session, row)] == ["B.txt", "a-b.txt", "a/x.txt"]


def test_repositories_are_searched_by_part_of_the_name_and_listed_by_owner(sessions: Sessions, commit: str) -> None:
    def names(**arguments: Any) -> list[str]:
        with sessions() as session:
            found = directory.page_of_repos(session, visible_to=None, limit=10, **arguments)
            return [repo.name for repo in found]

    assert names(search="MOD") == names(author="team") == names() == ["team/model"]
    assert (
        names(search="%")
        == names(author="tea")
        == names(search="\0")
        == names(behind=Behind("team/model", "team/model"))
        == []
    )
