"""The spans themselves. Imported only where an endpoint for them is set."""

import os
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, Status, StatusCode, TraceFlags
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

_PROPAGATED = (b"traceparent", b"tracestate")
_NS = 1_000_000_000
_FLUSH_MS = 5000


class _Described:
    def __init__(self, span: trace.Span) -> None:
        self._span = span

    def describe(self, name: str | None = None, *, failed: str | None = None, **attributes: Any) -> None:
        """See `app.tracing.Span`."""
        if name is not None:
            self._span.update_name(name)
        if failed is not None:
            self._span.set_status(Status(StatusCode.ERROR, failed))
        self._span.set_attributes({key.replace("__", "."): value for key, value in attributes.items()})


class Tracing:
    """Sends the spans of one process, in batches and from a thread of its own."""

    def __init__(self, service: str) -> None:
        named = {"service.name": os.environ.get("OTEL_SERVICE_NAME") or service}
        self._provider = TracerProvider(resource=Resource.create(named))
        self._processor = BatchSpanProcessor(OTLPSpanExporter())
        self._provider.add_span_processor(self._processor)
        self._tracer = self._provider.get_tracer("streamline")
        self._propagator = TraceContextTextMapPropagator()

    @contextmanager
    def request(self, method: str, headers: Iterable[tuple[bytes, bytes]]) -> Iterator[_Described]:
        """A request, as a part of what its headers say."""
        carrier = {name.decode(): value.decode("latin-1") for name, value in headers if name in _PROPAGATED}
        above = self._propagator.extract(carrier)
        with self._tracer.start_as_current_span(method, above, SpanKind.SERVER, record_exception=False) as span:
            yield _Described(span)

    def new_job(self) -> str:
        """`trace id-span id of the job-flags-span id of the request`, in hex."""
        above = trace.get_current_span().get_span_context()
        if not above.is_valid:
            return ""
        own = secrets.randbits(64) | 1  # never the invalid 0
        return f"{above.trace_id:032x}-{own:016x}-{int(above.trace_flags):02x}-{above.span_id:016x}"

    def job_ended(self, kept: str, job_id: str, *, began: datetime, state: str) -> None:
        """The job's span is told at its end, by whoever saw it: no process lives as long as a job may."""
        context, above = _contexts(kept)
        if not context.trace_flags.sampled:
            return
        status = Status(StatusCode.ERROR, state) if state == "failed" else Status(StatusCode.UNSET)
        told = ReadableSpan(
            "job",
            context,
            parent=above,
            resource=self._provider.resource,
            attributes={"streamline.job_id": job_id, "streamline.state": state},
            status=status,
            start_time=int(began.timestamp() * _NS),
            end_time=time.time_ns(),
        )
        self._processor.on_end(told)

    def flush(self) -> None:
        """See `app.tracing.flush`."""
        self._provider.force_flush(_FLUSH_MS)

    @contextmanager
    def attempt(self, kept: str, **attributes: Any) -> Iterator[_Described]:
        """An attempt, as a part of the job."""
        context, _ = _contexts(kept)
        above = trace.set_span_in_context(NonRecordingSpan(context))
        with self._tracer.start_as_current_span("attempt", above, SpanKind.CONSUMER, record_exception=False) as span:
            described = _Described(span)
            described.describe(**attributes)
            yield described

    @contextmanager
    def stages(self) -> Iterator[Callable[[Mapping[str, Any]], None]]:
        """What is open at the end of the block ended with it."""
        above = trace.set_span_in_context(trace.get_current_span())
        under_way: list[trace.Span] = []

        def end(event: Mapping[str, Any]) -> None:
            for span in under_way:
                span.end(_ns(event))
            under_way.clear()

        def take(event: Mapping[str, Any]) -> None:
            match event.get("event"):
                case "stage_started":
                    end(event)
                    span = self._tracer.start_span(str(event["stage"]), above, start_time=_ns(event))
                    under_way.append(span)
                case "stage_finished":
                    for span in under_way:
                        span.set_attribute("streamline.skipped", bool(event.get("skipped", False)))
                    end(event)
                case "failed":
                    for span in under_way:
                        span.set_status(Status(StatusCode.ERROR, str(event.get("code"))))
                    end(event)

        try:
            yield take
        finally:
            end({})


def _contexts(kept: str) -> tuple[SpanContext, SpanContext]:
    """Of the job, and of the request that made it."""
    trace_id, own, flags, above = kept.split("-")
    both = (
        SpanContext(int(trace_id, 16), int(span, 16), is_remote=True, trace_flags=TraceFlags(int(flags, 16)))
        for span in (own, above)
    )
    return next(both), next(both)


def _ns(event: Mapping[str, Any]) -> int:
    seconds = event.get("time")
    return int(seconds * _NS) if isinstance(seconds, int | float) else time.time_ns()
