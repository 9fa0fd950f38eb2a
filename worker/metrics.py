"""What a worker counts for Prometheus; served by itself, because its numbers are its own."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final

import structlog
from prometheus_client import REGISTRY, Counter, Gauge, Histogram, start_http_server

from app.settings import SettingsError

log = structlog.get_logger(__name__)


class Outcome(StrEnum):
    """How an attempt at a job can end."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    RETRIED = "retried"
    CANCELLED = "cancelled"
    GIVEN_BACK = "given_back"
    LEASE_LOST = "lease_lost"


ATTEMPTS: Final = Counter("streamline_attempts", "Attempts that have ended, by how", ["outcome"])
for _outcome in Outcome:  # a rate needs the zero before the first
    ATTEMPTS.labels(outcome=_outcome)
STAGE_SECONDS: Final = Histogram(
    "streamline_stage_seconds",
    "Wall time of stages that ran to their end",
    ["stage"],
    buckets=(1, 5, 15, 60, 300, 900, 3600, 4 * 3600, 12 * 3600),
)
GPU_MEMORY: Final = Gauge(
    "streamline_gpu_memory_bytes", "Most GPU memory that the engine had allocated in the last stage it ended, by stage",
    ["stage"],
)  # fmt: skip


def note(event: Mapping[str, Any]) -> None:
    """Count what an event of the engine tells."""
    if event.get("event") == "stage_finished" and not event.get("skipped"):
        STAGE_SECONDS.labels(stage=event["stage"]).observe(float(event["seconds"]))
    elif event.get("event") == "metric" and event.get("gpu_memory_bytes") is not None:
        GPU_MEMORY.labels(stage=event["stage"]).set(float(event["gpu_memory_bytes"]))


def serve(bind: str) -> None:
    """Serve `/metrics` at `host:port` from a thread; nothing when `bind` is empty.

    Raises:
        SettingsError: nobody can listen there.
    """
    if bind:
        host, _, port = bind.rpartition(":")
        try:
            start_http_server(int(port), addr=host, registry=REGISTRY)
        except OSError as error:
            raise SettingsError(
                f"STREAMLINE_WORKER_METRICS: nobody can listen on {bind} ({error.strerror}); each worker of a machine "
                "needs a port of its own."
            ) from None
        log.info("metrics_served", bind=bind)
