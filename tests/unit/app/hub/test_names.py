import re
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.hub.errors import BadName
from app.hub.names import RESERVED_NAMESPACES, check_path, check_ref_name, check_repo_name, is_commit, taken_twice

# The client's own rule (huggingface_hub.utils.validate_repo_id), against which ours is held.
CLIENT_RULE = re.compile(r"(\b[\w\-.]{1,96}\b/)?\b[\w\-.]{1,96}\b", re.ASCII)


@pytest.mark.parametrize("name", ["demo/stories-24l", "gpt2", "a/b.c_d-e", "_x/_y", "a" * 96])
def test_names_of_the_hubs_form_are_allowed(name: str) -> None:
    assert check_repo_name(name) == name


ODD_NAMES = ["", "/", "a/", "/a", "a/b/c", "../etc", "a/..", "a..b", "a--b", ".a", "a.", "-a", "a-", "a b", "a/b.git"]
UNSAFE_NAMES = ["ä", "a\n", "a\0", "a%2Fb", "a" * 97, "a" * 48 + "/" + "b" * 48, "a\\b", "a:b"]


@pytest.mark.parametrize("name", ODD_NAMES + UNSAFE_NAMES)
def test_odd_names_are_refused_with_the_allowed_form(name: str) -> None:
    with pytest.raises(BadName, match="Allowed: `namespace/name` or `name`, each of letters"):
        check_repo_name(name)


@pytest.mark.parametrize("namespace", [*sorted(RESERVED_NAMESPACES), "API", "V1"])
def test_the_services_own_paths_are_no_namespaces(namespace: str) -> None:
    for name in (namespace, f"{namespace}/model"):
        with pytest.raises(BadName, match="reserved"):
            check_repo_name(name)


@pytest.mark.parametrize("word", ["resolve", "tree", "refs", "revision", "commits", "Tree"])
def test_words_of_the_urls_are_no_repositories(word: str) -> None:
    for name in (word, f"team/{word}"):
        with pytest.raises(BadName):
            check_repo_name(name)


@given(name=st.text(st.sampled_from(string.ascii_letters + string.digits + "-_./ é\0\n%"), max_size=100))
def test_whatever_we_allow_the_client_allows(name: str) -> None:
    try:
        check_repo_name(name)
    except BadName:
        return
    assert CLIENT_RULE.fullmatch(name)
    assert ".." not in name
    assert "--" not in name
    assert len(name) <= 96


@pytest.mark.parametrize("name", ["main", "v1.0", "feature/x", "job-0123", "a" * 255, "deadbeef"])
def test_branches_and_tags_follow_git(name: str) -> None:
    assert check_ref_name(name) == name


ODD_REFS = ["", "/a", "a/", "a//b", "a..b", ".a", "a/.b", "a.lock", "-a", "a b", "a~1", "a:b", "a\\b", "a%b", "a\n"]
LONG_REFS = ["0" * 40, "a" * 256, "a@{1}", "a."]


@pytest.mark.parametrize("name", ODD_REFS + LONG_REFS)
def test_names_that_git_refuses_are_refused(name: str) -> None:
    with pytest.raises(BadName):
        check_ref_name(name)


@pytest.mark.parametrize(
    "path", ["config.json", ".gitattributes", "a/b/c.safetensors", "a b.txt", "ü.md", "x" * 255, "ab/" * 341 + "c"]
)
def test_plain_relative_paths_name_files(path: str) -> None:
    assert check_path(path) == path


ODD_PATHS = [
    "",
    "/a",
    "a/",
    "a//b",
    "..",
    "a/../b",
    ".git/config",
    "a/.GIT/b",
    "./a",
    "a\0",
    "a\n",
    "a\\b",
    "ab/" * 341 + "cd",
    "x" * 256,
    "ü" * 128,
    " a",
]
UNENCODABLE_PATHS = ["\udcff.bin"]


@pytest.mark.parametrize("path", ODD_PATHS + UNENCODABLE_PATHS)
def test_paths_that_could_leave_or_hide_are_refused(path: str) -> None:
    with pytest.raises(BadName):
        check_path(path)


def test_a_commit_is_forty_lower_case_hex_digits() -> None:
    assert is_commit("0a" * 20)
    assert not is_commit("0A" * 20)
    assert not is_commit("0a" * 19)


@pytest.mark.parametrize(
    ("paths", "twice"),
    [(["a", "b/c", "b/d"], None), (["a", "b", "a"], "a"), (["a/b/c", "x", "a/b"], "a/b"), ([], None)],
)
def test_every_path_has_a_place_of_its_own(paths: list[str], twice: str | None) -> None:
    assert taken_twice(paths) == twice
