"""Take a model directory into the hub: look at everything first, then store it, then show it."""

import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy.orm import Session

from app.core.safetensors_file import PICKLES, CorruptSafetensors, read_checkpoint, read_header
from app.hub.card import model_tags, read_card
from app.hub.catalog import CONFIG_FILE, MAX_CONFIG_BYTES, parse_config
from app.hub.errors import BadName, DirectoryNotAllowed, ModelRefused, NoSafetensors
from app.hub.names import check_path, check_repo_name
from app.hub.publishing import Commit, commit_files, stage_files
from app.hub.revisions import DEFAULT_BRANCH
from app.storage.blobs import BlobStore


@dataclass(frozen=True, slots=True)
class ModelDirectory:
    """A directory that has been looked through and can be imported."""

    root: Path
    files: tuple[Path, ...]
    skipped: tuple[str, ...]
    """Relative paths that are left out: hidden files and weights in other forms than safetensors."""


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import came to."""

    commit: Commit
    files: int
    size: int
    """Bytes of all files."""
    skipped: tuple[str, ...]


def allowed_directory(path: str, roots: tuple[Path, ...]) -> tuple[Path, Path]:
    """The directory that `path` names and the root that holds it, both with symbolic links resolved.

    Raises:
        DirectoryNotAllowed: it lies in none of the roots.
        ModelRefused: it is no directory.
    """
    if not roots:
        raise DirectoryNotAllowed(
            "No directory may be imported from: set STREAMLINE_MODEL_ROOTS to the directories that hold models "
            "(separated like PATH) and start the service again."
        )
    if "\0" in path:
        raise ModelRefused("The path holds a NUL character; name the model's directory.")
    try:
        directory = Path(path).resolve()
    except (OSError, RuntimeError):  # a loop of symbolic links
        raise ModelRefused(f"{path} cannot be resolved; name the model's directory.") from None
    root = next((found for found in (root.resolve() for root in roots) if directory.is_relative_to(found)), None)
    if root is None:
        # The same words whether it exists or not: the answer must not explore the disk for the caller.
        raise DirectoryNotAllowed(
            f"{path} is not inside a directory that may be imported from. Add its directory to STREAMLINE_MODEL_ROOTS "
            "(separated like PATH) and start the service again, or move the model into one that is there already."
        )
    if not directory.is_dir():
        raise ModelRefused(f"{path} is not a directory; name the directory that holds the model's config.json.")
    return directory, root


def inspect_model(directory: Path, *, root: Path | None = None) -> ModelDirectory:
    """Look through a model directory without storing anything.

    Symbolic links are followed as long as they stay inside `root` (the directory itself by default), so that a snapshot
    of the Hugging Face cache can be imported where the cache is a root. Weights must be safetensors with valid headers.

    Raises:
        ModelRefused: no config.json, no safetensors weights, a corrupt file, a link that leaves the root, a file that
            is neither file nor directory, or a file name that the hub does not allow.
        OSError: a file cannot be read.
    """
    root = (root or directory).resolve()
    kept: list[Path] = []
    skipped: list[str] = []
    for path in _walk(directory, directory, root, skipped):
        name = path.relative_to(directory).as_posix()
        if path.suffix.lower() in PICKLES:
            skipped.append(name)
            continue
        try:
            check_path(name)
        except BadName as error:
            raise ModelRefused(f"{error} Rename or remove the file.", file=name) from None
        kept.append(path)
    _check_config(directory, kept)
    _check_weights(directory, kept, skipped)
    return ModelDirectory(directory, tuple(kept), tuple(sorted(skipped)))


def _walk(directory: Path, top: Path, root: Path, skipped: list[str]) -> Iterator[Path]:
    for path in sorted(directory.iterdir()):
        name = path.relative_to(top).as_posix()
        if path.name.startswith("."):
            skipped.append(name)
            continue
        if path.is_symlink() and not _stays_inside(path, root):
            raise ModelRefused(
                f"{name} is a symbolic link that leaves the directories that may be imported from; put the "
                "file itself there.",
                file=name,
            )
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            if path.is_symlink():
                raise ModelRefused(f"{name} links to a directory; put the directory itself there.", file=name)
            yield from _walk(path, top, root, skipped)
        elif stat.S_ISREG(mode):
            yield path
        else:
            raise ModelRefused(f"{name} is neither a file nor a directory; remove it.", file=name)


def _stays_inside(path: Path, root: Path) -> bool:
    try:
        return path.resolve(strict=True).is_relative_to(root)
    except (OSError, RuntimeError):  # dangling, or a loop
        return False


def _check_config(directory: Path, kept: list[Path]) -> None:
    config = directory / CONFIG_FILE
    if config not in kept:
        raise ModelRefused(
            f"The directory has no {CONFIG_FILE}; name the directory that save_pretrained wrote.", file=CONFIG_FILE
        )
    if config.stat().st_size > MAX_CONFIG_BYTES:
        raise ModelRefused(f"{CONFIG_FILE} is larger than {MAX_CONFIG_BYTES:,} bytes.", file=CONFIG_FILE)
    try:
        parse_config(config.read_bytes())
    except ValueError as error:
        raise ModelRefused(
            f"{CONFIG_FILE} is {error}; write it again with save_pretrained.", file=CONFIG_FILE
        ) from None


def _check_weights(directory: Path, kept: list[Path], skipped: list[str]) -> None:
    try:
        checkpoint = read_checkpoint(directory)
        used = {file.path for file in checkpoint.files}
        for path in kept:  # adapters and the like, which the index does not name
            if path.suffix == ".safetensors" and path not in used:
                read_header(path)
    except CorruptSafetensors as error:
        raise ModelRefused(f"{error}. Download or write the file again.", file=error.file) from None
    except FileNotFoundError:
        found = [name for name in skipped if not name.startswith(".")]
        other = f"only {', '.join(found[:3])}" if found else "no weights"
        raise NoSafetensors(
            f"The directory holds no safetensors weights ({other}). Convert it first: load it with transformers and "
            "save it with save_pretrained(..., safe_serialization=True)."
        ) from None
    missing = sorted(file.name for file in checkpoint.files if file.path not in kept)
    if missing:
        raise ModelRefused(f"{missing[0]} belongs to the weights but cannot be imported.", file=missing[0])


def import_directory(
    session: Session,
    store: BlobStore,
    directory: Path,
    repo: str,
    *,
    root: Path | None = None,
    private: bool = False,
    owner: str = "",
    author: str = "",
    ref: str = DEFAULT_BRANCH,
    message: str | None = None,
) -> Imported:
    """Check the directory, store its files and publish them, in the caller's transaction.

    All reading and hashing is done before the first statement, so the transaction is short. Where the branch already
    holds the same content, nothing is written.

    Raises:
        BadName: the repository's name.
        ModelRefused: see inspect_model.
        StorageFull: there is no room; nothing is visible.
    """
    check_repo_name(repo)
    model = inspect_model(directory, root=root)
    staged = stage_files(store, model.root, model.files)
    commit = commit_files(
        session,
        repo,
        staged,
        message or f"Import {repo}",
        ref=ref,
        private=private,
        owner=owner,
        author=author,
        tags=model_tags(staged, read_card(store, staged)),
    )
    return Imported(commit, len(staged), sum(file.size for file in staged), model.skipped)
