"""When a path changed last: what is noted at each commit says the same as a walk through the whole history."""

import uuid
from collections.abc import Mapping

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.orm import Session, sessionmaker

from app.db.models import CommitRow
from app.hub import repository, wire
from app.hub.objects import TreeFile, tree_entries
from app.hub.publishing import commit_files
from app.hub.revisions import repo_named

Sessions = sessionmaker[Session]
Tree = dict[str, int]

PATHS = ["a", "d/b", "d/c", "d/e/f", "g/h"]
TREES = st.dictionaries(st.sampled_from(PATHS), st.integers(0, 2), min_size=1)


def files_of(tree: Mapping[str, int]) -> list[TreeFile]:
    return [TreeFile(path, 1, f"{content:064x}", f"{content:040x}") for path, content in tree.items()]


def by_walking(chain: list[tuple[CommitRow, Tree]]) -> dict[str, str]:
    """For every path of the newest commit (they come newest first), the commit that gave it its present content."""
    newest, tree = chain[0]
    present = {path: entry.oid for path, entry in tree_entries(files_of(tree)).items()}
    found = dict.fromkeys(present, newest.oid)
    undecided = set(present)
    for commit, older in chain:
        entries = tree_entries(files_of(older))
        undecided = {path for path in undecided if path in entries and entries[path].oid == present[path]}
        found.update(dict.fromkeys(undecided, commit.oid))
    return {path: oid for path, oid in found.items() if path}


@given(trees=st.lists(TREES, min_size=1, max_size=7))
@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
def test_last_changes_are_those_of_a_walk_through_the_history(sessions: Sessions, trees: list[Tree]) -> None:
    repo = f"team/{uuid.uuid4().hex}"
    chain: list[tuple[CommitRow, Tree]] = []
    with sessions.begin() as session:
        for index, tree in enumerate(trees):
            made = commit_files(session, repo, files_of(tree), f"commit {index}")
            row = repository.find_commit(session, repo_named(session, repo).id, made.oid)
            assert row is not None
            if made.new:
                chain.insert(0, (row, tree))
    with sessions() as session:
        newest = chain[0][0]
        ids = wire.last_changes(
            repository.files_since(session, newest), repository.removals(session, newest, limit=1000)
        )
        commits = repository.commits(session, ids.values())
    assert {path: commits[id_].oid for path, id_ in ids.items()} == by_walking(chain)
