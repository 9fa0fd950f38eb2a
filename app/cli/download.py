"""Downloading a checkpoint with nothing but HTTP: for machines without the Hugging Face client."""

import hashlib
from pathlib import Path

import httpx

from app.cli.exits import UsageError
from app.client import Streamline, UnreachableError

_CHUNK_BYTES = 1 << 20


def download_repo(service: Streamline, repo: str, directory: Path) -> list[str]:
    """Fetch every file of a revision; a file that is there already with the right sha256 is kept.

    Raises:
        UsageError: no such repo or revision, or a file that arrived damaged.
    """
    name, _, revision = repo.partition("@")
    try:
        with httpx.Client(**service.connection) as http:
            return _fetch_all(http, name, revision or "main", directory)
    except httpx.HTTPStatusError as error:
        raise UsageError(f"The hub answered {error.response.status_code} for {error.request.url.path}.") from None
    except httpx.TransportError:
        raise UnreachableError(service.url) from None


def _fetch_all(http: httpx.Client, name: str, revision: str, directory: Path) -> list[str]:
    answer = http.get(f"/api/models/{name}/revision/{revision}", params={"blobs": "true"})
    if answer.status_code in {httpx.codes.NOT_FOUND, httpx.codes.UNAUTHORIZED}:
        raise UsageError(f"The hub has no {name} at {revision} (or you may not read it).")
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
    staged = target.with_name(target.name + ".part")
    with http.stream("GET", url) as stream, staged.open("wb") as out:
        stream.raise_for_status()
        for chunk in stream.iter_bytes(_CHUNK_BYTES):
            out.write(chunk)
    if digest and _sha256(staged) != digest:
        staged.unlink()
        raise UsageError(f"{target.name} arrived damaged; run the same command again.")
    staged.replace(target)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
