"""Names that the hub allows: the Hugging Face Hub's own rules, and a few words that its URLs need for themselves."""

import re
from collections.abc import Iterable, Iterator

from app.hub.errors import BadName

RESERVED_NAMESPACES = frozenset({"v1", "api", "docs", "models", "xet", "static"})
"""First path segments that the service uses itself."""

_URL_WORDS = frozenset({
    "auth-check", "blob", "branch", "commit", "commits", "compare", "discussions", "paths-info", "preupload", "raw",
    "refs", "resolve", "revision", "settings", "tag", "tree", "xet-read-token", "xet-write-token",
})  # fmt: skip
# `/api/models/a/refs` is either repository `a/refs` or the refs of `a`: no repository may be called like that.

_LIMIT = 96
_REF_LIMIT = 255
_PATH_LIMIT = 1024
_PART_BYTES = 255
"""Of a file's or a folder's own name: what file systems take."""
_PART = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]*[A-Za-z0-9_])?")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_REF_FORBIDDEN = re.compile(r"[\x00-\x20\x7f~^:?*\[\\%]|\.\.|@\{|//|/\.|\.lock(?:/|$)")
_RESERVED_PARTS = frozenset({".", "..", ".git"})
_PATH_FORBIDDEN = re.compile(r"[\x00-\x1f\x7f\\]")

REPO_FORM = (
    "`namespace/name` or `name`, each of letters, digits, `-`, `_` and `.`, not beginning or ending with `-` or `.`, "
    f"without `--` or `..`, not ending with `.git`, {_LIMIT} characters at most together"
)


def check_repo_name(text: str) -> str:
    """Return `text` if it can name a repository.

    Raises:
        BadName: it cannot; the message holds the allowed form.
    """
    parts = text.split("/")
    if (
        len(text) > _LIMIT
        or len(parts) > 2
        or not all(_PART.fullmatch(part) for part in parts)
        or ".." in text
        or "--" in text
        or text.endswith(".git")
    ):
        raise BadName(f"{text[: 2 * _LIMIT]!r} cannot name a repository. Allowed: {REPO_FORM}.")
    if parts[0].lower() in RESERVED_NAMESPACES:
        raise BadName(f"{text!r} cannot name a repository: {parts[0]!r} is reserved. Choose another {_role(parts)}.")
    if parts[-1].lower() in _URL_WORDS:
        raise BadName(f"{text!r} cannot name a repository: {parts[-1]!r} is a word of the URLs. Choose another name.")
    return text


def _role(parts: list[str]) -> str:
    return "namespace" if len(parts) == 2 else "name"


def check_ref_name(text: str) -> str:
    """Return `text` if it can name a branch or a tag (git's rules; a commit's 40 hex digits would be ambiguous).

    Raises:
        BadName: it cannot.
    """
    if (
        not 0 < len(text) <= _REF_LIMIT
        or text[0] in "./-"
        or text[-1] in "./"
        or _REF_FORBIDDEN.search(text)
        or _COMMIT.fullmatch(text)
    ):
        raise BadName(
            f"{text[:_REF_LIMIT]!r} cannot name a branch or tag. Allowed: git's ref names of at most {_REF_LIMIT} "
            "characters, such as `main`, `v1.0` or `feature/x`, that are no commit's 40 hex digits."
        )
    return text


def check_path(text: str) -> str:
    """Return `text` if it can name a file of a repository: relative, `/` between its parts, nothing of git's own.

    Raises:
        BadName: it cannot.
    """
    parts = text.split("/")
    if (
        len(text) > _PATH_LIMIT
        or _PATH_FORBIDDEN.search(text)
        or any(not part or part.lower() in _RESERVED_PARTS or part != part.strip() for part in parts)
        or not _is_encodable(text)
        or any(len(part.encode()) > _PART_BYTES for part in parts)
    ):
        raise BadName(
            f"{text[:200]!r} cannot name a file of a repository. Allowed: relative paths of at most {_PATH_LIMIT} "
            "characters without `.`, `..`, `.git`, empty parts, control characters and backslashes, each part of at "
            f"most {_PART_BYTES} bytes."
        )
    return text


def taken_twice(paths: Iterable[str]) -> str | None:
    """A path that is there twice, or is a file and a folder at once; None where every one has its own place."""
    seen: set[str] = set()
    for path in paths:
        if path in seen:
            return path
        seen.add(path)
    return min((folder for path in seen for folder in parents(path) if folder in seen), default=None)


def parents(path: str) -> Iterator[str]:
    """The folders that a path lies in, the innermost first."""
    while "/" in path:
        path = path.rpartition("/")[0]
        yield path


def _is_encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # a file name that is not UTF-8, as Python decodes it
        return False
    return True


def is_commit(text: str) -> bool:
    """Whether `text` has the form of a commit: 40 lower-case hex digits."""
    return _COMMIT.fullmatch(text) is not None
