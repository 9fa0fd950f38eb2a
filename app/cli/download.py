"""Downloading a checkpoint with nothing but HTTP: for machines without the Hugging Face client."""

import re
from pathlib import Path
from urllib.parse import quote

import httpx
from rich.console import Console

from app.cli.exits import BrokenOffError, NotAllowedError, UsageError
from app.cli.hub_address import HubAddress
from app.cli.transfer import RemoteFile, fetch
from app.cli.transfer_display import Display, transfer_display
from app.client import UnreachableError
from app.client.retries import reason_of
from app.hub.errors import BadName
from app.hub.names import check_repo_name


def download_repo(hub: HubAddress, repo: str, directory: Path) -> list[str]:
    """Fetch every file of a revision; a file that is there already with the right sha256 is kept.

    Raises:
        UsageError: no such repo or revision, or a file that arrived damaged.
        NotAllowedError: the key is missing, not valid, or may not read the files.
        UnreachableError: no hub answers.
        BrokenOffError: it hung up; the next call goes on from there.
    """
    name, _, revision = repo.partition("@")
    try:
        check_repo_name(name)
    except BadName as error:
        raise UsageError(str(error)) from None
    try:
        # Other hubs send files from elsewhere.
        with (
            httpx.Client(**hub.connection, follow_redirects=True) as http,
            transfer_display(Console(stderr=True)) as display,
        ):
            return _fetch_all(hub, http, name, revision or "main", directory, display)
    except httpx.HTTPStatusError as error:
        said = f"{hub.url} does not give {error.request.url.path}: {_told(error.response)}."
        if error.response.status_code in {httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN}:
            raise NotAllowedError(said) from None
        raise UsageError(said) from None
    except (httpx.ConnectError, httpx.ConnectTimeout) as error:
        raise UnreachableError(hub.url, reason_of(error)) from None
    except httpx.TransportError as error:
        if reason := reason_of(error):
            raise UnreachableError(hub.url, reason) from None
        raise BrokenOffError(
            f"{hub.url} hung up before it had said which files there are; run the same command again."
        ) from None


def _told(answer: httpx.Response) -> str:
    """The hub's own words, without the full stop."""
    said = answer.headers.get("X-Error-Message")
    if not said:
        try:
            said = answer.json()["error"]
        except (ValueError, TypeError, KeyError, httpx.ResponseNotRead):
            said = f"it answered {answer.status_code}"
    return str(said).rstrip(".")


def _fetch_all(
    hub: HubAddress, http: httpx.Client, name: str, revision: str, directory: Path, display: Display
) -> list[str]:
    answer = http.get(f"/api/models/{name}/revision/{quote(revision, safe='')}", params={"blobs": "true"})
    if answer.status_code == httpx.codes.UNAUTHORIZED:
        said = (
            f"The key in {hub.key_variable} is not known to {hub.url}, was revoked or has expired; set a valid one."
            if hub.keyed
            else f"{hub.url} shows no {name} without a key; set {hub.key_variable}."
        )
        raise NotAllowedError(said)
    if answer.status_code == httpx.codes.NOT_FOUND:
        known = answer.headers.get("X-Error-Code") == "RevisionNotFound"
        elsewhere = "" if known else " Another hub is asked where STREAMLINE_URL names it."
        raise UsageError(f"The hub at {hub.url} says: {_told(answer)}.{elsewhere}")
    info = answer.raise_for_status().json()
    names = [file["rfilename"] for file in info["siblings"]]
    for path in names:
        if directory.resolve() not in (directory / path).resolve().parents:
            raise UsageError(f"The hub names a file outside the directory: {path!r}. Nothing was written.")
    for file in info["siblings"]:
        path, sha256 = file["rfilename"], (file.get("lfs") or {}).get("sha256")
        if sha256 is not None and not re.fullmatch("[0-9a-f]{64}", str(sha256)):
            raise UsageError(f"The hub gives {path!r} a sha256 that is none: {str(sha256)[:64]!r}.")
        remote = RemoteFile(path, f"/{name}/resolve/{info['sha']}/{quote(path)}", file.get("size"), sha256)
        fetch(http, remote, directory / path, display)
    return names
