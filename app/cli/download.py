"""Downloading a checkpoint with nothing but HTTP: for machines without the Hugging Face client."""

import glob
import hashlib
from pathlib import Path
from urllib.parse import quote

import httpx

from app.cli.exits import NotAllowedError, UsageError
from app.cli.hub_address import HubAddress
from app.client import UnreachableError

_CHUNK_BYTES = 1 << 20


def download_repo(hub: HubAddress, repo: str, directory: Path) -> list[str]:
    """Fetch every file of a revision; a file that is there already with the right sha256 is kept.

    Raises:
        UsageError: no such repo or revision, or a file that arrived damaged.
        NotAllowedError: the key is missing, not valid, or may not read the files.
        UnreachableError: no hub answers, or it hung up; the next call goes on from there.
    """
    name, _, revision = repo.partition("@")
    try:
        with httpx.Client(**hub.connection, follow_redirects=True) as http:  # other hubs send files from elsewhere
            return _fetch_all(hub, http, name, revision or "main", directory)
    except httpx.HTTPStatusError as error:
        told = error.response.headers.get("X-Error-Message", f"it answered {error.response.status_code}")
        said = f"{hub.url} does not give {error.request.url.path}: {told.rstrip('.')}."
        if error.response.status_code in {httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN}:
            raise NotAllowedError(said) from None
        raise UsageError(said) from None
    except httpx.TransportError:
        raise UnreachableError(hub.url) from None


def _fetch_all(hub: HubAddress, http: httpx.Client, name: str, revision: str, directory: Path) -> list[str]:
    answer = http.get(f"/api/models/{name}/revision/{quote(revision, safe='')}", params={"blobs": "true"})
    if answer.status_code == httpx.codes.UNAUTHORIZED:
        said = (
            f"The key in {hub.key_variable} is not known to {hub.url}, was revoked or has expired; set a valid one."
            if hub.keyed
            else f"{hub.url} shows no {name} without a key; set {hub.key_variable}."
        )
        raise NotAllowedError(said)
    if answer.status_code == httpx.codes.NOT_FOUND:
        raise UsageError(
            f"The hub at {hub.url} has no {name} at {revision} (or you may not read it); another hub is asked where "
            "STREAMLINE_URL names it."
        )
    info = answer.raise_for_status().json()
    names = [file["rfilename"] for file in info["siblings"]]
    for path in names:
        if not (directory / path).resolve().is_relative_to(directory.resolve()):
            raise UsageError(f"The hub names a file outside the directory: {path!r}. Nothing was written.")
    for file in info["siblings"]:
        path, digest = file["rfilename"], (file.get("lfs") or {}).get("sha256")
        _fetch(http, f"/{name}/resolve/{info['sha']}/{path}", directory / path, digest)
    return names


def _fetch(http: httpx.Client, url: str, target: Path, digest: str | None) -> None:
    if digest and target.is_file() and _sha256(target) == digest:
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    # Named by its content: what another revision has left here is not gone on with.
    staged = target.with_name(f"{target.name}.{digest[:12]}.part" if digest else f"{target.name}.part")
    there = staged.stat().st_size if digest and staged.is_file() else 0
    with http.stream("GET", url, headers={"Range": f"bytes={there}-"} if there else {}) as stream:
        if stream.status_code != httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:  # else it is whole, or damaged
            stream.raise_for_status()
            with staged.open("ab" if stream.status_code == httpx.codes.PARTIAL_CONTENT else "wb") as out:
                for chunk in stream.iter_bytes(_CHUNK_BYTES):
                    out.write(chunk)
    if digest and _sha256(staged) != digest:
        staged.unlink()
        raise UsageError(f"{target.name} arrived damaged; run the same command again.")
    staged.replace(target)
    for other in target.parent.glob(f"{glob.escape(target.name)}.{'[0-9a-f]' * 12}.part"):
        other.unlink()  # begun of another revision


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
