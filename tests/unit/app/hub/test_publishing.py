import itertools
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest
from sqlalchemy.orm import Session, sessionmaker

from app.hub import directory, repository
from app.hub.errors import BadName, RevisionNotFound
from app.hub.publishing import Commit, StagedFile, commit_files, stage_directory
from app.hub.revisions import repo_named, resolve
from app.storage.local import LocalBlobStore

Sessions = sessionmaker[Session]


def staged(store: LocalBlobStore, **contents: str) -> list[StagedFile]:
    files = []
    for name, text in contents.items():
        blob = store.put_bytes(text.encode())
        files.append(StagedFile(name, blob.size, blob.sha256, blob.git_oid))
    return files


def publish(
    sessions: Sessions,
    files: list[StagedFile],
    message: str = "m",
    *,
    repo: str = "team/model",
    ref: str | None = "main",
    tag: str | None = None,
    job_id: str | None = None,
) -> Commit:
    with sessions.begin() as session:
        return commit_files(session, repo, files, message, ref=ref, tag=tag, job_id=job_id)


def resolved(sessions: Sessions, revision: str, repo: str = "team/model") -> str:
    with sessions() as session:
        return resolve(session, repo_named(session, repo), revision).oid


def test_a_published_directory_is_found_by_branch_tag_commit_and_prefix(
    sessions: Sessions, store: LocalBlobStore, tmp_path: Path
) -> None:
    (tmp_path / "model" / "sub").mkdir(parents=True)
    (tmp_path / "model" / "config.json").write_text("{}")
    (tmp_path / "model" / "sub" / "x.txt").write_text("x")
    commit = publish(sessions, stage_directory(store, tmp_path / "model"), tag="v1")
    for revision in ("main", "v1", commit.oid, commit.oid[:7]):
        assert resolved(sessions, revision) == commit.oid
    with sessions() as session:
        row = resolve(session, repo_named(session, "team/model"), "main")
        assert [file.path for file in repository.files(session, row)] == ["config.json", "sub/x.txt"]


def test_staging_twice_stores_once(store: LocalBlobStore, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    assert stage_directory(store, tmp_path / "model") == stage_directory(store, tmp_path / "model")
    assert len([path for path in (tmp_path / "store").rglob("*") if path.is_file()]) == 1


def test_a_reserved_name_is_refused_before_anything_is_stored(store: LocalBlobStore, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "a.txt").write_text("a")
    (tmp_path / "model" / ".git").write_text("s")
    with pytest.raises(BadName, match="Allowed"):
        stage_directory(store, tmp_path / "model")
    assert not [path for path in (tmp_path / "store").rglob("*") if path.is_file()]


def test_commits_form_a_chain(sessions: Sessions, store: LocalBlobStore) -> None:
    first = publish(sessions, staged(store, a="1"))
    second = publish(sessions, staged(store, a="2"))
    assert (first.parent, second.parent) == (None, first.oid)
    with sessions() as session:
        row = resolve(session, repo_named(session, "team/model"), "main")
        assert [commit.oid for commit in repository.history(session, row, limit=10)] == [second.oid, first.oid]


def test_publishing_the_same_job_twice_is_a_no_op(sessions: Sessions, store: LocalBlobStore) -> None:
    files = staged(store, a="1")
    first = publish(sessions, files, job_id="job1", tag="job-1")
    again = publish(sessions, files, job_id="job1", tag="job-1")
    assert again.oid == first.oid
    assert (first.new, again.new) == (True, False)


def test_a_late_retry_does_not_move_the_branch_back(sessions: Sessions, store: LocalBlobStore) -> None:
    files = staged(store, a="1")
    publish(sessions, files, job_id="job1")
    newer = publish(sessions, staged(store, a="2"), job_id="job2")
    publish(sessions, files, job_id="job1")
    assert resolved(sessions, "main") == newer.oid


def test_another_jobs_same_content_is_the_commit_that_is_there(sessions: Sessions, store: LocalBlobStore) -> None:
    files = staged(store, a="1")
    first = publish(sessions, files, "by job 1", job_id="job1", tag="job-1")
    second = publish(sessions, files, "by job 2", job_id="job2", tag="job-2")
    assert second.oid == first.oid
    assert resolved(sessions, "job-2") == first.oid


def test_the_same_content_under_another_name_is_a_new_commit(sessions: Sessions, store: LocalBlobStore) -> None:
    first = publish(sessions, staged(store, a="1"))
    second = publish(sessions, staged(store, b="1"))
    assert second.new
    assert second.oid != first.oid


def test_without_a_ref_no_branch_moves_and_the_commit_stays_reachable(
    sessions: Sessions, store: LocalBlobStore
) -> None:
    good = publish(sessions, staged(store, a="1"))
    missed = publish(sessions, staged(store, a="2"), ref=None, tag="job-2", job_id="job2")
    assert resolved(sessions, "main") == good.oid
    assert resolved(sessions, missed.oid) == missed.oid == resolved(sessions, "job-2")
    assert missed.parent == good.oid


def test_a_first_publication_without_a_ref_leaves_no_main(sessions: Sessions, store: LocalBlobStore) -> None:
    missed = publish(sessions, staged(store, a="1"), ref=None, job_id="job1")
    assert resolved(sessions, missed.oid) == missed.oid
    with pytest.raises(RevisionNotFound, match="refs"):
        resolved(sessions, "main")


def test_a_missed_gate_and_then_a_pass_with_the_same_commit_moves_main_once(
    sessions: Sessions, store: LocalBlobStore
) -> None:
    files = staged(store, a="1")
    missed = publish(sessions, files, ref=None, job_id="job1")
    for _ in range(2):
        assert publish(sessions, files, ref="main", job_id="job2").oid == missed.oid
    assert resolved(sessions, "main") == missed.oid


def test_a_branch_with_a_slash_and_a_tag_are_told_apart(sessions: Sessions, store: LocalBlobStore) -> None:
    first = publish(sessions, staged(store, a="1"), ref="feature/x")
    second = publish(sessions, staged(store, a="2"), ref="other", tag="feature/x")
    assert first.oid != second.oid
    assert resolved(sessions, "feature/x") == first.oid, "a branch wins over a tag"


def test_equal_commits_live_in_two_repositories(sessions: Sessions, store: LocalBlobStore) -> None:
    files = staged(store, a="1")
    assert publish(sessions, files, repo="a").oid == publish(sessions, files, repo="b/c").oid
    assert resolved(sessions, "main", "a") == resolved(sessions, "main", "b/c")


@pytest.mark.parametrize(("repo", "ref", "path"), [("../x", "main", "a"), ("a", "b..c", "a"), ("a", "main", "../a")])
def test_a_bad_name_anywhere_publishes_nothing(
    sessions: Sessions, store: LocalBlobStore, repo: str, ref: str, path: str
) -> None:
    with pytest.raises(BadName):
        publish(sessions, staged(store, **{path: "1"}), repo=repo, ref=ref)
    with sessions() as session:
        assert directory.find_repo(session, repo) is None


def test_an_empty_commit_is_refused(sessions: Sessions) -> None:
    with pytest.raises(ValueError, match="at least one file"):
        publish(sessions, [])


def test_a_transaction_that_is_rolled_back_leaves_nothing(sessions: Sessions, store: LocalBlobStore) -> None:
    with sessions() as session:
        commit_files(session, "team/model", staged(store, a="1"), "m")
        session.rollback()
        assert directory.find_repo(session, "team/model") is None


def test_publishers_that_race_take_turns_and_lose_nothing(sessions: Sessions, store: LocalBlobStore) -> None:
    publishers = 8
    barrier = Barrier(publishers)

    def one(number: int) -> Commit:
        files = staged(store, a=str(number))
        barrier.wait()
        return publish(sessions, files, job_id=f"job{number}")

    with ThreadPoolExecutor(publishers) as threads:
        commits = list(threads.map(one, range(publishers)))
    with sessions() as session:
        head = resolve(session, repo_named(session, "team/model"), "main")
        chain = repository.history(session, head, limit=100)
    assert {commit.oid for commit in chain} == {commit.oid for commit in commits}
    for child, parent in itertools.pairwise(chain):
        assert child.parent == parent.oid
