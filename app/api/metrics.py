"""What this process counts for Prometheus, and how the queue stands at the moment of the question."""

from typing import Final

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client import generate_latest as text_of
from starlette.types import Scope

from app.dispatch.memory_classes import memory_class
from app.jobs import queue
from app.jobs.states import State
from app.webhooks import deliveries

router = APIRouter()

REQUEST_SECONDS: Final = Histogram(
    "streamline_request_seconds",
    "From a request's headers to its answer's last byte",
    ["method", "route", "status"],
    buckets=(0.005, 0.02, 0.1, 0.5, 2, 10, 60),
)
SERVED_BYTES: Final = Counter("streamline_served_bytes", "Bytes of answers' bodies", ["route"])

_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"})


def observe(scope: Scope, *, status: int, seconds: float, body_bytes: int) -> str:
    """Count one answered request by its route's pattern, because paths have no end; returns the pattern."""
    route: str = getattr(scope.get("route"), "path", "unmatched")
    method = scope["method"] if scope["method"] in _METHODS else "other"
    REQUEST_SECONDS.labels(method=method, route=route, status=str(status)).observe(seconds)
    SERVED_BYTES.labels(route=route).inc(body_bytes)
    return route


@router.get("/metrics", include_in_schema=False)
def metrics(request: Request) -> Response:
    """Prometheus: this process' counters, and the queue as the database has it."""
    registry = CollectorRegistry()
    jobs = Gauge("streamline_jobs", "Jobs by state", ["state"], registry=registry)
    oldest = Gauge("streamline_queue_age_seconds", "Age of the job that has waited longest; 0: none", registry=registry)
    waiting = Gauge("streamline_webhooks_waiting", "Messages of webhooks that are still to be sent", registry=registry)
    needs = Gauge(
        "streamline_jobs_queued", "Jobs that wait, by the GPU memory they need", ["memory"], registry=registry
    )
    with request.app.state.read_sessions() as session:
        waiting.set(deliveries.waiting(session))
        counts = queue.state_counts(session)
        oldest.set(queue.queue_age_seconds(session))
        for required_bytes, count in queue.queued_needs(session).items():
            needs.labels(memory=memory_class(required_bytes)).inc(count)
    for state in State:
        jobs.labels(state=state.value).set(counts.get(state.value, 0))
    return Response(text_of(registry) + text_of(REGISTRY), media_type=CONTENT_TYPE_LATEST)
