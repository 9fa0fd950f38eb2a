"""The last stage: hold the report against the gates, store the bytes, and show everything in one transaction."""

import hashlib
import json
import shutil
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session, sessionmaker

from app.auth import keys
from app.core.defaults import SELF_TEXT
from app.core.gates import judge
from app.core.redaction import Redaction
from app.core.windows import in_words
from app.datasets import repository as datasets
from app.db.models import RepoRow
from app.hub import directory
from app.hub.access import Caller, check_as_closed, check_may_publish
from app.hub.card import CARD_FILE, BadCard, model_tags, parse_card, read_card, recipe_tags
from app.hub.publishing import JOB_TAG, StagedFile, commit_files, stage_directory
from app.jobs import repository
from app.jobs.repository import LeaseLostError
from app.provenance.manifest import MANIFEST_FILE, SIGNATURE_FILE, make_manifest
from app.provenance.signing import Signer
from app.report.versions import upgraded
from app.storage.artefacts import ArtefactStore
from app.storage.blobs import BlobStore
from worker.lease import AttemptEndedError, Lease
from worker.model_card import CardFacts, model_card
from worker.progress import Progress

# What a person may want to look at later; the rest of a workspace is scaffolding.
_ARTEFACTS = (
    "report.json",
    "recipe.json",
    "scores.json",
    "selection.json",
    "training.json",
    "healing.json",
    "verification.json",
    "probe.safetensors",
    "evaluation.json",
    "benchmark.json",
    "ledger.json",
    "engine.log",
)
_WITH_PLACES = frozenset({"report.json", "recipe.json", "engine.log"})
"""Of those the files that name directories of this machine."""


def publish(
    lease: Lease,
    sessions: sessionmaker[Session],
    store: BlobStore,
    artefacts: ArtefactStore,
    signer: Signer,
    workspace: Path,
    progress: Progress,
) -> None:
    """Publish the checkpoint and finish the job, both or neither; then the workspace goes.

    Blobs come first: they are content-addressed and nobody sees them before a commit names them, so that a publication
    that is killed and done again leaves no trace. A missed gate moves no branch; the commit keeps its tag.

    Raises:
        LeaseLostError: the job is no longer ours; nothing is visible.
        AttemptEndedError: somebody cancelled the job meanwhile; nothing is visible.
        StorageFull: there is no room; nothing is visible.
        NotAllowed: the output repository is no longer the submitter's to write to, or is open to more than the model.
    """
    job_id, spec = lease.claim.job_id, lease.claim.spec
    began = time.monotonic()
    progress.take({"event": "stage_started", "stage": "publish", "time": time.time()})
    lease.advance(**progress.drain())
    _name_no_place(workspace)
    report = json.loads((workspace / "report.json").read_text())
    verdict, gates = judge(spec["gates"], report["metrics"])
    beside = workspace / "card"  # not among the checkpoint's files, which the ledger knows by their hashes
    beside.mkdir(exist_ok=True)
    (beside / CARD_FILE).write_text(_card(sessions, workspace, spec, report, gates), encoding="utf-8")
    staged = [*stage_directory(store, workspace / "checkpoint"), *stage_directory(store, beside)]
    staged += stage_directory(store, _provenance(sessions, signer, workspace, spec, report, verdict, staged))
    card = read_card(store, staged)
    answers = [f"{path.parent.name}/{path.name}" for path in sorted(workspace.glob("samples/*.jsonl"))]
    if lease.lost():  # whoever has the job now may have written its artefacts already
        raise LeaseLostError(job_id)
    artefacts.write(job_id, {name: workspace / name for name in (*_artefacts(workspace), *answers)})
    if lease.lost():
        raise LeaseLostError(job_id)
    if lease.cancel.is_set():
        raise AttemptEndedError("the job is to be cancelled")
    metrics = report["metrics"]
    metrics["stage_seconds"]["publish"] = round(time.monotonic() - began, 3)
    with sessions.begin() as session:
        source = directory.find_repo(session, spec["model"]["repo"])
        job = repository.get(session, job_id)
        commit = commit_files(
            session,
            spec["output"]["repo"],
            staged,
            _message(spec, report, verdict),
            ref="main" if verdict == "pass" else None,
            tag=f"{JOB_TAG}{job_id}",
            job_id=job_id,
            private=source is None or source.private,  # what comes out of a private model is private
            gated=source.gated if source else None,
            owner=job.owner if job else "",
            tags=model_tags(staged, card, recipe_tags(spec)),
        )
        check_access(session, job.owner if job else "", source, commit.repo)
        result = {
            "repo": commit.repo,
            "revision": commit.oid,
            "checkpoint_sha256": checkpoint_hash(staged),
            "removed_layers": report["removed_layers"],
            "metrics": metrics,
        }
        repository.succeed(session, job_id, lease.claim.token, verdict=verdict, gates=gates, result=result)
    shutil.rmtree(workspace, ignore_errors=True)


def check_access(session: Session, owner: str, source: RepoRow | None, output: str) -> None:
    """Ask again what was asked at submission: somebody may have taken the name, or closed the model, since.

    A key that was revoked meanwhile was good when the job was accepted, and still is for what it asked for then.

    Raises:
        NotAllowed: nothing is published.
    """
    who = Caller(has_token=True, key=owner, scope=keys.scope_of(session, owner)) if owner else Caller()
    check_may_publish(session, who, output)
    check_as_closed(session, source, output)


def _name_no_place(workspace: Path) -> None:
    """Take this machine's directories out of the files that clients get; none of them is an output in the ledger."""
    redaction = Redaction(workspace=workspace)
    for name in _artefacts(workspace):
        file = workspace / name
        if file.name in _WITH_PLACES:
            text = file.read_text(encoding="utf-8", errors="replace")
            if (told := redaction.of_places(text)) != text:
                staged = file.with_name(f"{file.name}.staged")
                staged.write_text(told, encoding="utf-8")
                staged.replace(file)


def _artefacts(workspace: Path) -> list[str]:
    """The files worth keeping, those of single windows and of rounds among them, by their paths in the workspace."""
    places = [workspace, *sorted(workspace.glob("windows/*")), *sorted(workspace.glob("rounds/*"))]
    files = [place / name for place in places for name in _ARTEFACTS]
    return [str(file.relative_to(workspace)) for file in files if file.is_file()]


def _card(
    sessions: sessionmaker[Session],
    workspace: Path,
    spec: Mapping[str, Any],
    report: Mapping[str, Any],
    gates: Sequence[Mapping[str, Any]],
) -> str:
    evaluation = spec["evaluation"]
    used = [spec["calibration"]["dataset"], *(evaluation["perplexity"] or ()), *(evaluation.get("tasks") or ())]
    with sessions() as session:
        names = {row.id: row.name for id_ in used if (row := datasets.get(session, id_)) is not None}
    own = workspace / "source" / CARD_FILE
    try:
        base = parse_card(own.read_text(encoding="utf-8", errors="replace")).metadata if own.is_file() else {}
    except BadCard:
        base = {}
    custom_code = any((workspace / "checkpoint").glob("*.py"))
    return model_card(CardFacts(spec, upgraded(report), gates, base, names, custom_code))


def _provenance(
    sessions: sessionmaker[Session],
    signer: Signer,
    workspace: Path,
    spec: Mapping[str, Any],
    report: Mapping[str, Any],
    verdict: str,
    files: Iterable[StagedFile],
) -> Path:
    """A directory with the signed manifest of these files."""
    with sessions() as session:
        used = dict.fromkeys([spec["calibration"]["dataset"], *(spec["evaluation"]["perplexity"] or ())])
        data = {id_: row.sha256 for id_ in used if (row := datasets.get(session, id_)) is not None}
    data |= own_text(report)
    model = spec["model"]
    recipe = {name: value for name, value in spec.items() if name not in {"model", "labels"}}
    base = {"repo": model["repo"], "commit": model["revision"]}
    manifest = make_manifest(files, base=base, recipe=recipe, data=data, verdict=verdict)
    directory = workspace / "provenance"
    directory.mkdir(exist_ok=True)
    (directory / MANIFEST_FILE).write_bytes(manifest)
    (directory / SIGNATURE_FILE).write_bytes(signer.sign(manifest))
    return directory


def own_text(report: Mapping[str, Any]) -> dict[str, str]:
    """The sha256 of the text that the model wrote itself, if the job used one: only the engine knows it."""
    digest = ((report.get("lineage") or {}).get("data") or {}).get(SELF_TEXT)
    return {SELF_TEXT: digest} if digest else {}


_BESIDE = frozenset({CARD_FILE, MANIFEST_FILE, SIGNATURE_FILE})
"""Files about the model: the card tells measured speeds, the manifest has the card's hash."""


def checkpoint_hash(files: Iterable[StagedFile]) -> str:
    """One sha256 for all files of the model itself: over their names and sha256s in order.

    Equal exactly if every byte of the model is.
    """
    lines = sorted(f"{file.sha256}  {file.path}\n" for file in files if file.path not in _BESIDE)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _message(spec: Mapping[str, Any], report: Mapping[str, Any], verdict: str) -> str:
    replacement = spec["replacement"]
    trained = "" if replacement["kind"] == "none" else f", {replacement['loss']}, {replacement['epochs']} epoch(s)"
    healed = ", healed by LoRA" if spec.get("healing") else ""  # absent in jobs that are older than it
    return (
        f"Replace layers {in_words(report['removed_layers'])} of {spec['model']['repo']} by {replacement['kind']}\n\n"
        f"{report['metrics']['sparsity']:.1%} smaller; scored by {spec['scoring']['metric']}{trained}{healed}; "
        f"calibrated on {spec['calibration']['dataset']}; seed {spec['seed']}; verdict {verdict}.\n"
    )
