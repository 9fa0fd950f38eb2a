"""The manifest of a published revision, and the check of a directory against it."""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from app.hub.errors import BadName
from app.hub.names import check_path
from app.hub.objects import TreeFile
from app.provenance.signing import is_signed

MANIFEST_FILE = "provenance.json"
SIGNATURE_FILE = "provenance.json.sig"
FORMAT = 1

_CHUNK_BYTES = 1 << 20
_CLIENTS_OWN = ".cache"  # where `hf download --local-dir` keeps its notes


def make_manifest(
    files: Iterable[TreeFile],
    *,
    base: Mapping[str, str],
    recipe: Mapping[str, Any],
    data: Mapping[str, str],
    verdict: str,
) -> bytes:
    """The manifest of a revision. It names no job and no time: the same work gives the same bytes.

    Args:
        files: every file of the revision but the manifest and its signature.
        base: `repo` and `commit` of the dense model.
        recipe: the resolved request.
        data: sha256 of each text that the recipe names, by its id.
        verdict: what the gates said, `pass` or `fail`.
    """
    content = {
        "format": FORMAT,
        "files": {file.path: {"size": file.size, "sha256": file.sha256} for file in files},
        "base": dict(base),
        "recipe": dict(recipe),
        "data": dict(data),
        "verdict": verdict,
        "code": {"name": "streamline-compress", "version": version("streamline-compress")},
    }
    return (json.dumps(content, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()


@dataclass(frozen=True, slots=True)
class Flaw:
    """Something that is not as it was published."""

    file: str
    reason: str


@dataclass
class Verification:
    """What the check of a directory has found."""

    files: int = 0
    bytes: int = 0
    """Read and hashed."""
    signed: bool = False
    flaws: list[Flaw] = field(default_factory=list)
    base: dict[str, str] = field(default_factory=dict)
    """The dense model that it was made from, as the manifest says."""
    verdict: str | None = None
    """What the gates said of it; None where the manifest is older than that."""

    @property
    def passed(self) -> bool:
        """Whether the signature holds and every file is as it was signed, and no other is there."""
        return self.signed and not self.flaws


def verify(
    directory: Path, key: Ed25519PublicKey, *, progress: Callable[[int, int], None] = lambda _files, _bytes: None
) -> Verification:
    """Check a downloaded directory: signature, then every file's length and hash. Needs no network.

    Raises:
        OSError: a file cannot be read.
    """
    found = Verification()
    try:
        content = (directory / MANIFEST_FILE).read_bytes()
    except FileNotFoundError:
        found.flaws.append(Flaw(MANIFEST_FILE, "is missing: no job of this version made the revision"))
        return found
    try:
        signature = (directory / SIGNATURE_FILE).read_bytes()
    except FileNotFoundError:
        found.flaws.append(Flaw(SIGNATURE_FILE, "is missing"))
    else:
        found.signed = is_signed(content, signature, key)
        if not found.signed:
            told = f"is not this key's signature of {MANIFEST_FILE}"
            mine = "another service may have made the model: give that service's key with --key"
            found.flaws.append(Flaw(SIGNATURE_FILE, f"{told}; {mine}"))
    try:
        manifest = json.loads(content)
        files = {
            check_path(name): (int(entry["size"]), str(entry["sha256"])) for name, entry in manifest["files"].items()
        }
        found.verdict = str(manifest["verdict"]) if "verdict" in manifest else None
        found.base = {name: str(value) for name, value in manifest["base"].items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, BadName):
        found.flaws.append(Flaw(MANIFEST_FILE, "is no manifest that this version understands"))
        return found
    for name, (size, sha256) in sorted(files.items()):
        _check_file(directory / name, name, size, sha256, found, progress)
    found.flaws += [Flaw(name, "is not in the manifest") for name in _others(directory, files)]
    return found


def _check_file(
    path: Path, name: str, size: int, sha256: str, found: Verification, progress: Callable[[int, int], None]
) -> None:
    if not path.is_file():
        found.flaws.append(Flaw(name, "is missing"))
        return
    actual = path.stat().st_size
    if actual != size:
        found.flaws.append(Flaw(name, f"has {actual:,} bytes instead of {size:,}"))
        return
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
            found.bytes += len(chunk)
            progress(found.files, found.bytes)
    found.files += 1
    if digest.hexdigest() != sha256:
        found.flaws.append(Flaw(name, "has other bytes (its sha256 differs)"))


def _others(directory: Path, files: Mapping[str, object]) -> list[str]:
    # A file too many is no harmless thing: a loader may prefer it to what was signed. What a link to a directory leads
    # to is not walked, so the link itself is one too many.
    found = (path for path in directory.rglob("*") if path.is_symlink() or not path.is_dir())
    names = (path.relative_to(directory).as_posix() for path in found)
    known = {*files, MANIFEST_FILE, SIGNATURE_FILE}
    return sorted(name for name in names if name not in known and not name.startswith(f"{_CLIENTS_OWN}/"))
