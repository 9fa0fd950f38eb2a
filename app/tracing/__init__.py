"""OpenTelemetry traces, where an endpoint for them is set: request -> job -> attempt -> stage.

OpenTelemetry's own environment variables say where they go (`OTEL_EXPORTER_OTLP_ENDPOINT`, `..._HEADERS`,
`OTEL_TRACES_SAMPLER` and so on). Without an endpoint nothing of it is imported, and every function here does nothing.
What joins the spans of several processes is kept with the job, in the form that `new_job` returns.
"""

import importlib.util
import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, Protocol

import structlog

if TYPE_CHECKING:
    from app.tracing.spans import Tracing

ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")

log = structlog.get_logger(__name__)

_tracing: "Tracing | None" = None


class Span(Protocol):
    """What may be said about something under way."""

    def describe(self, name: str | None = None, *, failed: str | None = None, **attributes: Any) -> None:
        """Rename it, note values, or say why it failed."""


class _Nothing:
    def describe(self, name: str | None = None, *, failed: str | None = None, **attributes: Any) -> None:
        pass


NO_SPAN: Final[Span] = _Nothing()
"""Of something that nobody is told of."""


def configure_tracing(service: str) -> None:
    """Begin to send spans, if an endpoint is set; `service` is this process' name in them.

    An endpoint without the extra `otel` is said in the log and is no reason not to start.
    """
    global _tracing  # noqa: PLW0603 - one per process, as its log is
    if _tracing is not None or not any(os.environ.get(name) for name in ENDPOINTS):
        return
    if importlib.util.find_spec("opentelemetry") is None or importlib.util.find_spec("opentelemetry.sdk") is None:
        log.warning("traces_not_sent", reason="an endpoint is set, and the extra `otel` is not installed")
        return
    from app.tracing.spans import Tracing

    _tracing = Tracing(service)


def enabled() -> bool:
    """Whether spans are sent."""
    return _tracing is not None


def request_span(method: str, headers: Iterable[tuple[bytes, bytes]]) -> AbstractContextManager[Span]:
    """A request from its headers to its answer's end; a `traceparent` among the headers is what it is a part of."""
    return _tracing.request(method, headers) if _tracing else nullcontext(NO_SPAN)


def new_job() -> str:
    """What to keep with a job that the request under way makes; empty where nothing is sent."""
    return _tracing.new_job() if _tracing else ""


def job_ended(kept: str, job_id: str, *, began: datetime, state: str) -> None:
    """The job that `kept` is of has come to its end: tell of it from its beginning."""
    if _tracing and kept:
        _tracing.job_ended(kept, job_id, began=began, state=state)


def flush() -> None:
    """Send what is still waiting to be sent, for at most a few seconds.

    A server that a signal stops ends by that signal in the end, and nothing that is registered for its exit runs.
    """
    if _tracing:
        _tracing.flush()


def attempt_span(kept: str, **attributes: Any) -> AbstractContextManager[Span]:
    """An attempt at the job that `kept` is of."""
    return _tracing.attempt(kept, **attributes) if _tracing and kept else nullcontext(NO_SPAN)


def stage_spans() -> AbstractContextManager[Callable[[Mapping[str, Any]], None]]:
    """Takes the engine's events and makes spans of the stages among them, as parts of the attempt under way."""
    return _tracing.stages() if _tracing else nullcontext(lambda _event: None)
