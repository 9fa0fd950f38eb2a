"""One attempt at a job: claim, lease, the engine as a child, cancel, publish, and every way that it can end.

The supervisor imports no torch: heartbeats go on while the engine computes, a cancel is a signal, GPU memory is freed
by the engine's exit, and an out-of-memory kill takes the engine and not the worker.
"""

import errno
import os
import queue
import shutil
import socket
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.orm import Session, sessionmaker
from structlog.contextvars import bound_contextvars

from app.core.redaction import Redaction, without_stack
from app.hub.errors import HubError, NotAllowed, UpstreamDamaged, UpstreamTimeout, UpstreamUnavailable
from app.hub.upstream.store import PullThroughStore
from app.jobs import repository
from app.jobs.repository import LeaseLostError
from app.provenance.signing import Signer
from app.settings import Settings
from app.storage.artefacts import ArtefactStore
from app.storage.blobs import (
    BlobCollected,
    BlobCorrupt,
    BlobNotFound,
    BlobStore,
    StorageError,
    StorageFull,
    StoreRefused,
    StoreUnavailable,
)
from app.tracing import attempt_span, job_ended, stage_spans
from worker import metrics
from worker.engine_process import EngineProcess
from worker.fetching import fetch_model
from worker.lease import AttemptEndedError, Lease
from worker.metrics import Outcome
from worker.preparation import prepare
from worker.progress import Progress
from worker.publication import publish
from worker.pulse import Pulse
from worker.workspaces import remove_scratch

log = structlog.get_logger(__name__)

_POLL_SECONDS = 0.2
_DATABASE_AWAY = (OperationalError, InterfaceError, PoolTimeoutError)
_ENDS = frozenset({Outcome.SUCCEEDED, Outcome.FAILED, Outcome.CANCELLED})
"""Outcomes of an attempt that are the job's."""


@dataclass(frozen=True)
class WorkerContext:
    """What every attempt needs."""

    settings: Settings
    sessions: sessionmaker[Session]
    read_sessions: sessionmaker[Session]
    """Never wait for SQLite's one writer, and never make it wait."""
    store: BlobStore
    upstream: PullThroughStore | None
    """The same store, where an upstream hub lies behind it."""
    artefacts: ArtefactStore
    signer: Signer
    memory_bytes: int | None
    """Of the GPU that jobs are taken for; None: every job is taken."""
    stopping: threading.Event
    """Set when this worker is to stop: the job under way is given back."""


class _EngineFailedError(Exception):
    def __init__(self, error: dict[str, Any], *, permanent: bool) -> None:
        self.error = error
        self.permanent = permanent


def worker_name() -> str:
    """Return what leases and the list of workers call this process: its machine and its number there."""
    return f"{socket.gethostname()}:{os.getpid()}"


def run_job(job_id: str, context: WorkerContext) -> None:
    """Carry a job out, if it is still there to be carried out. Never raises for a reason that lies in the job."""
    settings = context.settings
    if context.stopping.is_set():
        return
    owner = worker_name()
    with context.sessions.begin() as session:
        claim = repository.claim(
            session,
            job_id,
            owner=owner,
            lease_seconds=settings.lease_seconds,
            memory_bytes=context.memory_bytes,
        )
    if claim is None:
        log.info("not_claimed", job_id=job_id)
        return
    lease = Lease(
        context.sessions, claim, heartbeat_seconds=settings.heartbeat_seconds, lease_seconds=settings.lease_seconds
    )
    names = {"streamline__job_id": job_id, "streamline__attempt": claim.attempt}
    with (
        bound_contextvars(job_id=job_id, attempt=claim.attempt, request_id=claim.request_id),
        attempt_span(claim.trace, **names) as span,
    ):
        log.info("claimed")
        try:
            with lease:
                outcome = _attempt(lease, context)
        except LeaseLostError:
            outcome = Outcome.LEASE_LOST
        metrics.ATTEMPTS.labels(outcome=outcome).inc()
        log.info("attempt_ended", outcome=outcome)
        bad = outcome in {Outcome.FAILED, Outcome.RETRIED, Outcome.LEASE_LOST}
        span.describe(failed=str(outcome) if bad else None, streamline__outcome=str(outcome))
    if outcome in _ENDS and claim.created_at is not None:
        job_ended(claim.trace, job_id, began=claim.created_at, state=str(outcome))


def _attempt(lease: Lease, context: WorkerContext) -> Outcome:
    workspace = context.settings.work_dir / lease.claim.job_id
    with stage_spans() as watch:
        outcome = _watched_attempt(lease, context, workspace, Progress(watch))
    if outcome in {Outcome.CANCELLED, Outcome.FAILED}:
        # What a killed engine could not clear away itself: up to half of the disk, and of no use to a retry.
        remove_scratch(workspace)
    return outcome


def _watched_attempt(lease: Lease, context: WorkerContext, workspace: Path, progress: Progress) -> Outcome:
    job_id, token, settings = lease.claim.job_id, lease.claim.token, context.settings
    try:
        if context.upstream is not None:
            fetch_model(lease.claim, context.read_sessions, context.upstream, _Fetching(lease, progress, context))
        arguments = prepare(lease.claim, context.sessions, context.store, workspace, settings)
        _run_engine(arguments, workspace, lease, progress, context)
        publish(lease, context.sessions, context.store, context.artefacts, context.signer, workspace, progress)
        return Outcome.SUCCEEDED
    except AttemptEndedError as end:
        with context.sessions.begin() as session:
            if lease.cancel.is_set():
                repository.cancelled(session, job_id, token)
                return Outcome.CANCELLED
            repository.release(session, job_id, token, reason=str(end))
            return Outcome.GIVEN_BACK
    except _EngineFailedError as failure:
        return _record_failure(failure.error, lease, context, permanent=failure.permanent)
    except (HubError, StorageError) as failure:
        error = {"code": _code_of(failure), "detail": str(failure), "stage": progress.stage or "fetch"}
        passing = isinstance(failure, StoreUnavailable | BlobCollected | UpstreamUnavailable | UpstreamDamaged)
        return _record_failure(error, lease, context, permanent=not passing)
    except LeaseLostError:
        raise
    except OSError as failure:
        log.exception("attempt_failed")
        error = {
            "code": "worker_failed",
            "detail": f"The worker failed: {failure.strerror}.",
            "stage": progress.stage or "fetch",
        }
        full = failure.errno in {errno.ENOSPC, errno.EDQUOT}
        if full:
            free = shutil.disk_usage(settings.work_dir).free
            error |= {
                "code": "disk_full",
                "detail": f"The disk of the workspaces is full: {free} bytes are free.",
            }
        return _record_failure(error, lease, context, permanent=full)
    except Exception as failure:
        log.exception("attempt_failed")
        detail = f"The worker failed with {type(failure).__name__}; its log has the details."
        error = {"code": "worker_failed", "detail": detail, "stage": progress.stage or "fetch"}
        return _record_failure(error, lease, context, permanent=False)


def _code_of(failure: Exception) -> str:
    match failure:
        case StorageFull():
            return "disk_full"
        case BlobNotFound() | BlobCorrupt() | BlobCollected():
            return "blob_missing"
        case StoreRefused() | StoreUnavailable():
            return "storage_unavailable"
        case NotAllowed():
            return "not_allowed"
        case UpstreamTimeout():
            return "upstream_timeout"
        case UpstreamDamaged():
            return "upstream_damaged"
        case UpstreamUnavailable():
            return "upstream_unavailable"
        case _:
            return "model_unavailable"


def _redaction(context: WorkerContext, job_id: str) -> Redaction:
    """What clients are told names no place of this machine."""
    settings = context.settings
    return Redaction(workspace=settings.work_dir / job_id, data=settings.data_dir)


def _record_failure(error: dict[str, Any], lease: Lease, context: WorkerContext, *, permanent: bool) -> Outcome:
    job_id, token = lease.claim.job_id, lease.claim.token
    error = _redaction(context, job_id).of_values(error)
    with context.sessions.begin() as session:
        if permanent:
            repository.fail(session, job_id, token, error=error)
            return Outcome.FAILED
        again = repository.attempt_failed(
            session, job_id, token, error=error, max_attempts=context.settings.max_attempts
        )
    return Outcome.RETRIED if again else Outcome.FAILED


def _run_engine(
    arguments: list[str], workspace: Path, lease: Lease, progress: Progress, context: WorkerContext
) -> None:
    redacted = _redaction(context, lease.claim.job_id).of_values
    engine = EngineProcess(arguments, log_file=workspace / "engine.log")
    pulse = Pulse(engine.pid, context.settings.hang_seconds)
    failed: dict[str, Any] | None = None
    try:
        while True:
            try:
                event = engine.events.get(timeout=_POLL_SECONDS)
            except queue.Empty:
                pass
            else:
                if event is None:
                    break
                pulse.heard()
                event = redacted(event)
                metrics.note(event)
                if event.get("event") == "failed":
                    failed = event
                progress.take(event)
            _heed_interruptions(lease, context)
            _check_alive(pulse, engine, progress, context)
            if progress.due():
                _write_down(lease, progress)
        while (status := engine.wait(_POLL_SECONDS)) is None:  # its output has ended, but it may hang on its way out
            _heed_interruptions(lease, context)
            _check_alive(pulse, engine, progress, context)
    except BaseException:
        # A stopping worker lets the engine leave in order; otherwise nothing that it still does is wanted, and a kill
        # at any point leaves a workspace that can be gone on with.
        engine.stop(context.settings.stop_grace_seconds if context.stopping.is_set() else 0.0)
        raise
    if failed is not None:
        if failed.get("code") == "workspace_busy":
            # The engine of a worker that lost this job has not ended yet (it was suspended, or is on another machine).
            # That is nobody's failure: the job waits in the queue until the workspace is free.
            raise AttemptEndedError("another engine is still at work in the job's workspace")
        error = {key: failed.get(key) for key in ("code", "detail", "stage")}
        raise _EngineFailedError(error, permanent=bool(failed.get("permanent", True)))
    if status != 0:
        ended = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
        detail = _with_last_words(f"The engine {ended}.", engine)
        raise _EngineFailedError({"code": "engine_died", "detail": detail, "stage": progress.stage}, permanent=False)
    while progress.pending:
        _heed_interruptions(lease, context)
        if not _write_down(lease, progress):
            time.sleep(_POLL_SECONDS)


@dataclass(frozen=True)
class _Fetching:
    """What the fetching of a model from the upstream hub tells: how far it is, before the engine's own `fetch`."""

    lease: Lease
    progress: Progress
    context: WorkerContext

    def __call__(self, done: int, total: int) -> None:
        """Note bytes that have come, of bytes that are to come; raises where the attempt is to end."""
        if self.progress.stage is None:
            self.progress.take({"event": "stage_started", "stage": "fetch", "time": time.time()})
        self.progress.take({"event": "progress", "stage": "fetch", "done": done, "total": total})
        _heed_interruptions(self.lease, self.context)
        if self.progress.due():
            _write_down(self.lease, self.progress)


def _check_alive(pulse: Pulse, engine: EngineProcess, progress: Progress, context: WorkerContext) -> None:
    """Raise for an engine that gives no sign of life any more; the caller kills it."""
    if pulse.has_stopped():
        seconds = context.settings.hang_seconds
        what = f"The engine hung: it sent no event and used no processor for {seconds:g} s, and was killed."
        error = {"code": "engine_hung", "detail": _with_last_words(what, engine), "stage": progress.stage}
        raise _EngineFailedError(error, permanent=False)


def _with_last_words(sentence: str, engine: EngineProcess) -> str:
    said = without_stack(engine.last_output())
    return f"{sentence} Its last words: {said}" if said else sentence


def _write_down(lease: Lease, progress: Progress) -> bool:
    """Write what has happened; False while the database is away, and then it waits for the next round.

    Only the lease decides when a database that stays away costs the job.
    """
    written = progress.drain()
    try:
        lease.advance(**written)
    except _DATABASE_AWAY as error:
        log.warning("progress_not_written", error=type(error).__name__)
        progress.put_back(written)
        return False
    return True


def _heed_interruptions(lease: Lease, context: WorkerContext) -> None:
    if lease.lost():
        raise LeaseLostError(lease.claim.job_id)
    if lease.cancel.is_set():
        raise AttemptEndedError("the job is to be cancelled")
    if context.stopping.is_set():
        raise AttemptEndedError("the worker is stopping")
