"""The calls to another hub, in the Hugging Face wire format. Nothing here touches the disk or the database.

The token goes to the configured host alone: httpx drops it when a redirect leads elsewhere, and the addresses of
further pages are not followed but rebuilt.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

import httpx

from app.auth.loopback import is_link_local, is_loopback
from app.hub.errors import (
    GatedRepository,
    HubError,
    RepositoryNotFound,
    RevisionNotFound,
    UpstreamLoop,
    UpstreamRefused,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from app.hub.names import is_commit
from app.hub.upstream import ring

MAX_FILES = 10_000
LOOP_CODE = "UpstreamLoop"
"""`X-Error-Code` of a look-up that has come round."""
_MAX_JSON_BYTES = 32 << 20
_PIECE_BYTES = 256 << 10
_TIMEOUT = httpx.Timeout(10.0, connect=5.0)
_STREAM_TIMEOUT = httpx.Timeout(30.0, connect=5.0)


@dataclass(frozen=True, slots=True)
class RemoteRevision:
    """What a revision's name stands for at this moment."""

    commit: str
    """40 hex digits."""
    private: bool
    gated: bool


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file of a commit."""

    path: str
    size: int
    """Bytes."""
    git_oid: str
    """Git's name for the content; of a file in LFS, for its pointer."""
    sha256: str | None
    """Known of files in LFS."""


class RemoteHub:
    """Another hub. Safe for threads."""

    def __init__(self, url: str, token: str | None, *, asker: str = "") -> None:
        """Connect to nothing yet.

        Args:
            url: such as https://huggingface.co.
            token: shown to that host, or None.
            asker: this service's name, as `ring` has it.
        """
        self.url = url.rstrip("/")
        self.asker = asker
        headers = {"Accept-Encoding": "identity", "User-Agent": "streamline"} | ring.header_of([asker])
        if token:
            headers["Authorization"] = f"Bearer {token}"
        # A proxy knows nothing of this machine's own addresses, and nobody else has business there.
        elsewhere = not is_loopback(httpx.URL(self.url).host)
        self._http = httpx.Client(
            headers=headers,
            timeout=_TIMEOUT,
            follow_redirects=True,
            max_redirects=5,
            trust_env=elsewhere,
            event_hooks={"request": [_check_not_ours]} if elsewhere else None,
        )

    def close(self) -> None:
        """Let go of every connection."""
        self._http.close()

    def revision(self, name: str, revision: str, *, via: Sequence[str] = ()) -> RemoteRevision:
        """The commit that `revision` names now; `via` are the services that this one asks for.

        Raises:
            RepositoryNotFound, RevisionNotFound, GatedRepository: as the hub says, with the token that it was shown.
            UpstreamUnavailable: it does not answer, or not as a hub would; UpstreamLoop where that leads back here.
        """
        path = f"/api/models/{name}/revision/{quote(revision, safe='')}"
        found, _ = self._json(name, revision, path, headers=ring.header_of([*via, self.asker]))
        commit = found.get("sha") if isinstance(found, dict) else None
        if not isinstance(commit, str) or not is_commit(commit):
            raise UpstreamUnavailable("answers in a form that no hub has")
        return RemoteRevision(commit, found.get("private") is True, bool(found.get("gated")))

    def files(self, name: str, commit: str) -> list[RemoteFile]:
        """All files of a commit.

        Raises:
            RepositoryNotFound, RevisionNotFound, GatedRepository, UpstreamUnavailable: as revision.
            UpstreamRefused: there are more than MAX_FILES.
        """
        path = f"/api/models/{name}/tree/{commit}"
        query = {"recursive": "true", "expand": "false"}
        files: list[RemoteFile] = []
        entries = 0
        while True:
            page, following = self._json(name, commit, path, query)
            try:
                files += [_file(entry) for entry in page if entry["type"] == "file"]
                entries += len(page)
            except (KeyError, TypeError, ValueError, AttributeError):
                raise UpstreamUnavailable("answers in a form that no hub has") from None
            if max(len(files), entries // 2) > MAX_FILES:
                raise UpstreamRefused(f"{name} has more than {MAX_FILES:,} files and is not fetched.")
            if following is None:
                return files
            if not page:  # it could go on like this for ever
                raise UpstreamUnavailable("answers in a form that no hub has")
            query = following

    def kind_of(self, name: str, revision: str) -> str | None:
        """`branch` or `tag`, or None where the revision is neither.

        Raises:
            RepositoryNotFound, GatedRepository, UpstreamUnavailable: as revision.
        """
        found, _ = self._json(name, revision, f"/api/models/{name}/refs")
        for kind, key in (("branch", "branches"), ("tag", "tags")):
            listed = found.get(key) if isinstance(found, dict) else None
            if any(isinstance(ref, dict) and ref.get("name") == revision for ref in listed or ()):
                return kind
        return None

    @contextmanager
    def stream(self, name: str, commit: str, path: str, start: int, end: int) -> Iterator[Iterator[bytes]]:
        """Bytes `start` to `end` (exclusive) of a file that `files` has named, in pieces; fewer where it ends early.

        Raises:
            UpstreamUnavailable: the connection breaks, or the hub does not give the file (any more).
        """
        url = f"{self.url}/{name}/resolve/{commit}/{quote(path)}"
        headers = {"Range": f"bytes={start}-{end - 1}"} if end > start else {}
        try:
            with self._http.stream("GET", url, headers=headers, timeout=_STREAM_TIMEOUT) as answer:
                if not answer.is_success:
                    raise UpstreamUnavailable(f"answers {answer.status_code} for {path[:200]!r} of {name}")
                skipped = _bytes_before(answer, start)
                yield _cut(answer.iter_raw(_PIECE_BYTES), skipped, end - start)
        except (httpx.HTTPError, httpx.StreamError) as error:
            raise _unavailable(error) from None

    def _json(
        self,
        name: str,
        revision: str,
        path: str,
        query: dict[str, str] | None = None,
        headers: dict[str, str] | None = None,
    ) -> tuple[Any, dict[str, str] | None]:
        """A JSON answer, and the query of the page behind it."""
        try:
            with self._http.stream("GET", self.url + path, params=query, headers=headers) as answer:
                if not answer.is_success:
                    raise _refusal(answer, name, revision)
                body = bytearray()
                for piece in answer.iter_bytes():
                    body += piece
                    if len(body) > _MAX_JSON_BYTES:
                        raise UpstreamUnavailable(f"answers with more than {_MAX_JSON_BYTES:,} bytes")
                following = answer.links.get("next")
        except (httpx.HTTPError, httpx.StreamError) as error:
            raise _unavailable(error) from None
        try:
            found = json.loads(body)
            more = dict(httpx.URL(following["url"]).params) if following else None
        except (ValueError, KeyError, RecursionError, httpx.InvalidURL):
            raise UpstreamUnavailable("answers in a form that no hub has") from None
        return found, more


def _file(entry: Any) -> RemoteFile:
    large = entry.get("lfs")
    size = large["size"] if large else entry["size"]
    sha256 = large["oid"] if large else None
    path, oid = entry["path"], entry["oid"]
    if not isinstance(size, int) or size < 0 or not isinstance(path, str) or not isinstance(oid, str):
        raise ValueError(path)
    if sha256 is not None and (len(sha256) != 64 or not set(sha256) <= set("0123456789abcdef")):
        raise ValueError(path)
    return RemoteFile(path, size, oid, sha256)


def _refusal(answer: httpx.Response, name: str, revision: str) -> HubError:
    """What the hub says."""
    code, status = answer.headers.get("x-error-code"), answer.status_code
    if code == LOOP_CODE:
        return UpstreamLoop()
    if code == "GatedRepo":
        return GatedRepository(name)
    if status == HTTPStatus.UNAUTHORIZED and "Invalid credentials" in answer.headers.get("x-error-message", ""):
        return UpstreamUnavailable("refuses the token in STREAMLINE_UPSTREAM_TOKEN")
    if code in {"RevisionNotFound", "EntryNotFound"}:
        return RevisionNotFound(name, revision)
    if code == "RepoNotFound" or status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.NOT_FOUND}:
        return RepositoryNotFound(name)  # without a token a missing repository is answered by 401
    return UpstreamUnavailable(f"answers {status}")


def _check_not_ours(request: httpx.Request) -> None:
    """Let pass what no redirect has led to this machine's own services, or to what its network says of it."""
    host = request.url.host
    if is_loopback(host) or is_link_local(host):
        raise UpstreamUnavailable("sends us to an address of this machine's own")


def _bytes_before(answer: httpx.Response, start: int) -> int:
    """How many bytes of the answer lie before `start`: all of them where the hub knows no ranges."""
    if answer.status_code != HTTPStatus.PARTIAL_CONTENT:
        return start
    if not answer.headers.get("content-range", "").startswith(f"bytes {start}-"):
        raise UpstreamUnavailable("sends another range than it was asked for")
    return 0


def _cut(pieces: Iterator[bytes], skipped: int, length: int) -> Iterator[bytes]:
    for whole in pieces:
        piece = whole[skipped:]
        skipped -= len(whole) - len(piece)
        piece = piece[:length]
        length -= len(piece)
        if piece:
            yield piece
        if not length:
            return


def _unavailable(error: Exception) -> UpstreamUnavailable:
    # Nothing of the error's own words: an address that it names may hold a signature.
    if isinstance(error, httpx.TimeoutException):
        return UpstreamTimeout(f"does not answer in time ({type(error).__name__})")
    return UpstreamUnavailable(f"cannot be reached ({type(error).__name__})")
