"""Read everything back and compare: which bytes are missing, which are damaged, which nobody names."""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import BinaryIO

from app.storage.artefacts import ArtefactNotFound, ArtefactStore
from app.storage.blobs import BlobNotFound, BlobStore

_CHUNK_BYTES = 1 << 20

Progress = Callable[[int, int], None]
"""(blobs and artefacts looked at, bytes read) so far."""


@dataclass
class Findings:
    """What an integrity check has found."""

    blobs: int = 0
    artefacts: int = 0
    bytes: int = 0
    """Read and hashed."""
    missing: list[str] = field(default_factory=list)
    """Sha256s of blobs that are named and not there; `job/file` of artefacts."""
    corrupt: list[str] = field(default_factory=list)
    """The same of those whose bytes have another hash or length."""
    unreferenced: list[str] = field(default_factory=list)
    """Sha256s of blobs that neither a commit nor a data set names: the collection's, when they are old enough."""
    set_aside: list[str] = field(default_factory=list)
    """Where damaged blobs have been moved to."""
    damaged: list[str] = field(default_factory=list)
    """Their sha256s."""

    @property
    def clean(self) -> bool:
        """Whether everything that is named is there and as it should be."""
        return not self.missing and not self.corrupt


def check(
    store: BlobStore,
    artefacts: ArtefactStore,
    named: Callable[[], Mapping[str, int]],
    *,
    repair: bool = False,
    progress: Progress = lambda _done, _bytes: None,
) -> Findings:
    """Rehash every blob and every artefact beside a running service; nothing is ever deleted.

    Args:
        store: the blobs.
        artefacts: the jobs' files.
        named: sha256 -> bytes of every blob that a commit or a data set names, asked before and after.
        repair: move damaged blobs aside, so that putting them again mends what names them.
        progress: called now and then.
    """
    findings = Findings()
    before = named()
    seen: set[str] = set()
    for sha256, size in store.blobs():
        seen.add(sha256)
        try:
            intact = _digest(store.read(sha256, 0, size), findings, progress) == sha256
        except BlobNotFound:  # collected while we looked
            seen.discard(sha256)
            continue
        findings.blobs += 1
        if not intact:
            findings.corrupt.append(sha256)
            if repair:
                findings.set_aside.append(store.set_aside(sha256))
                findings.damaged.append(sha256)
        if sha256 not in before:
            findings.unreferenced.append(sha256)
    # What is named since may have been put since: asked for one by one, and what is not named any more may go.
    after = named()
    findings.missing = sorted(sha256 for sha256 in after if sha256 not in seen and sha256 not in store)
    findings.unreferenced = sorted(sha256 for sha256 in findings.unreferenced if sha256 not in after)
    findings.corrupt.sort()
    for job_id in artefacts.jobs():
        _check_job(artefacts, job_id, findings, progress)
    return findings


def _check_job(artefacts: ArtefactStore, job_id: str, findings: Findings, progress: Progress) -> None:
    for name, entry in sorted(artefacts.manifest(job_id).items()):
        try:
            with artefacts.open(job_id, name) as file:
                intact = _digest(_chunks(file), findings, progress) == entry.sha256
        except ArtefactNotFound:
            if name in artefacts.manifest(job_id):  # not replaced while we looked
                findings.missing.append(f"{job_id}/{name}")
            continue
        findings.artefacts += 1
        if not intact:
            findings.corrupt.append(f"{job_id}/{name}")


def _digest(pieces: Iterator[bytes], findings: Findings, progress: Progress) -> str:
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
        findings.bytes += len(piece)
        progress(findings.blobs + findings.artefacts, findings.bytes)
    return digest.hexdigest()


def _chunks(file: BinaryIO) -> Iterator[bytes]:
    while chunk := file.read(_CHUNK_BYTES):
        yield chunk
