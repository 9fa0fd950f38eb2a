"""The artefacts of jobs: a directory per job, whose `manifest.json` is written last.

A directory without a manifest is a half-written one and has no artefacts. The manifest names each file with its size
and sha256; what it does not name cannot be read through here.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Protocol

from app.storage.blobs import SourceChanged, StorageError
from app.storage.staging import collect_abandoned, flush_directory, flush_to_disk, require_space, show, staged_file

MANIFEST = "manifest.json"
_JOB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_CHUNK = 4 << 20


@dataclass(frozen=True, slots=True)
class ArtefactFile:
    """A file of a job, as its manifest knows it."""

    size: int
    """Bytes."""
    sha256: str


class ArtefactNotFound(StorageError):  # noqa: N818 - named for what happened
    """The job has no such artefact (yet)."""

    def __init__(self, job_id: str, path: str) -> None:
        super().__init__(f"Job {job_id} has no artefact {path!r}; a job's artefacts are there once it has finished.")
        self.job_id = job_id
        self.path = path


class ArtefactStore(Protocol):
    """The files of jobs, in sets that appear as a whole."""

    def write(self, job_id: str, files: Mapping[str, Path]) -> dict[str, ArtefactFile]:
        """Copy `files` (relative name -> file) and then write the manifest; replaces an earlier set as a whole.

        Writing the same set again after a kill at any point ends in the same set.

        Raises:
            ValueError: a job id or a name that could leave the directory.
            StorageFull, StoreRefused, StoreUnavailable: the store cannot take them.
            SourceChanged: a file was written to meanwhile.
            OSError: a file cannot be read.
        """
        ...

    def manifest(self, job_id: str) -> dict[str, ArtefactFile]:
        """The job's files by name; empty while the job has no complete set."""
        ...

    def path(self, job_id: str, name: str) -> Path:
        """A local file of an artefact that the manifest names.

        Raises:
            ArtefactNotFound: the manifest does not name it.
        """
        ...

    def open(self, job_id: str, name: str) -> BinaryIO:
        """The artefact from its first byte.

        Raises:
            ArtefactNotFound: the manifest does not name it.
        """
        ...

    def jobs(self) -> Iterator[str]:
        """The id of every job that has a complete set."""
        ...

    def collect_abandoned(self) -> int:
        """Remove what killed writers left half-written; returns the number of files removed."""
        ...


class LocalArtefactStore:
    """Artefacts under `<root>/jobs/<job id>/`."""

    def __init__(self, root: Path) -> None:
        """Use `root`, made if it is missing."""
        self._jobs = root / "jobs"
        self._staging = root / "staging"
        for directory in (self._jobs, self._staging):
            directory.mkdir(parents=True, exist_ok=True)

    def collect_abandoned(self) -> int:
        """Remove what killed processes left half-written; call it at start. Returns the number of files removed."""
        return collect_abandoned(self._staging)

    def write(self, job_id: str, files: Mapping[str, Path]) -> dict[str, ArtefactFile]:
        """Copy `files` and then write the manifest (see ArtefactStore).

        The earlier manifest goes first, so that no reader sees it next to newer files.
        """
        directory = self._directory(job_id)
        names = sorted((check_name(name), path) for name, path in files.items())
        require_space(self._staging, sum(path.stat().st_size for _, path in names))
        directory.mkdir(exist_ok=True)
        (directory / MANIFEST).unlink(missing_ok=True)
        flush_directory(directory)
        manifest = {str(name): self._copy(path, directory / name) for name, path in names}
        for left_over in sorted(directory.rglob("*"), reverse=True):
            if left_over.is_file() and left_over.relative_to(directory).as_posix() not in manifest:
                left_over.unlink()
        text = json.dumps({name: asdict(file) for name, file in manifest.items()}, indent=1, sort_keys=True)
        with staged_file(self._staging, needed=len(text)) as (staged, target):
            target.write(text.encode())
            flush_to_disk(target)
            show(staged, directory / MANIFEST)
        return manifest

    def _copy(self, source: Path, destination: Path) -> ArtefactFile:
        digest = hashlib.sha256()
        with source.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            with staged_file(self._staging, needed=size) as (staged, target):
                copied = 0
                while chunk := file.read(_CHUNK):
                    copied += len(chunk)
                    digest.update(chunk)
                    target.write(chunk)
                if copied != size:
                    raise SourceChanged(source)
                flush_to_disk(target)
                destination.parent.mkdir(parents=True, exist_ok=True)
                show(staged, destination)
        return ArtefactFile(size, digest.hexdigest())

    def manifest(self, job_id: str) -> dict[str, ArtefactFile]:
        """The job's files by name (see ArtefactStore)."""
        try:
            return parse_manifest((self._directory(job_id) / MANIFEST).read_bytes())
        except FileNotFoundError:
            return {}

    def path(self, job_id: str, name: str) -> Path:
        """The artefact's own file (see ArtefactStore)."""
        try:
            relative = check_name(name)
        except ValueError:
            raise ArtefactNotFound(job_id, name) from None
        if str(relative) not in self.manifest(job_id):
            raise ArtefactNotFound(job_id, name)
        path = self._directory(job_id) / relative
        if not path.is_file():  # the manifest outlived it
            raise ArtefactNotFound(job_id, name)
        return path

    def open(self, job_id: str, name: str) -> BinaryIO:
        """The artefact from its first byte (see ArtefactStore)."""
        try:
            return self.path(job_id, name).open("rb")
        except FileNotFoundError:
            raise ArtefactNotFound(job_id, name) from None

    def jobs(self) -> Iterator[str]:
        """Every job with a complete set (see ArtefactStore)."""
        return (manifest.parent.name for manifest in self._jobs.glob(f"*/{MANIFEST}"))

    def _directory(self, job_id: str) -> Path:
        return self._jobs / check_job_id(job_id)


def check_job_id(job_id: str) -> str:
    """Return `job_id` if it can name a directory.

    Raises:
        ValueError: it could leave the directory of jobs.
    """
    if not _JOB_ID.fullmatch(job_id):
        raise ValueError(f"not a job id: {job_id!r}")
    return job_id


def parse_manifest(content: bytes) -> dict[str, ArtefactFile]:
    """The files that a manifest names."""
    return {name: ArtefactFile(**entry) for name, entry in json.loads(content).items()}


def check_name(name: str) -> PurePosixPath:
    """The relative path of an artefact, once it is sure to stay inside its directory.

    Raises:
        ValueError: empty, absolute, with `..`, a NUL or a backslash, or the manifest's own name.
    """
    path = PurePosixPath(name)
    parts = name.split("/")
    if not name or name == MANIFEST or "\0" in name or "\\" in name or any(part in {"", ".", ".."} for part in parts):
        raise ValueError(f"not a relative path inside the job's directory: {name!r}")
    return path
