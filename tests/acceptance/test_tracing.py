"""Traces as a collector gets them: one job's spans, of the API and of the worker, joined to each other."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.service_process import QUICK_JOB, running_service, wait_until

TRACE, CLIENT_SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
STAGES = ["fetch", "score", "select", "train", "assemble", "verify", "evaluate", "benchmark", "publish"]


@contextmanager
def collector() -> Iterator[tuple[str, list[tuple[str, Span]]]]:
    """The address of an OTLP/HTTP receiver, and the spans that came, each with its service's name."""
    came: list[tuple[str, Span]] = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert (self.path, self.headers["Content-Type"]) == ("/v1/traces", "application/x-protobuf")
            request = ExportTraceServiceRequest.FromString(self.rfile.read(int(self.headers["Content-Length"])))
            for part in request.resource_spans:
                (name,) = (one.value.string_value for one in part.resource.attributes if one.key == "service.name")
                came.extend((name, span) for scope in part.scope_spans for span in scope.spans)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", came
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_request_job_attempt_and_stages_are_one_trace(tmp_path: Path) -> None:
    with collector() as (endpoint, came):
        environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_BSP_SCHEDULE_DELAY": "200"}
        with running_service(tmp_path / "data", environment) as service, service.client() as client:
            job = httpx.post(
                f"{service.url}/v1/jobs",
                json=QUICK_JOB | {"replacement": {"kind": "none", "tokens": 2048}},
                headers={"traceparent": f"00-{TRACE}-{CLIENT_SPAN}-01", "X-Request-ID": "traced"},
            ).json()
            assert client.wait(job["id"], timeout=600)["state"] == "succeeded"
            for _ in range(2):  # the one worker takes one of them, and the other waits
                client.submit(QUICK_JOB)
            wait_until(lambda: client.jobs(state="running")["items"], what="one runs")
            (waiting,) = client.jobs(state="queued")["items"]
            assert client.cancel(waiting["id"])["state"] == "cancelled"
        # Both processes have stopped, and sent what they had.
    spans = {span.span_id.hex(): (service, span) for service, span in came if span.trace_id.hex() == TRACE}

    def under(parent: str) -> list[tuple[str, Span]]:
        found = [entry for entry in spans.values() if entry[1].parent_span_id.hex() == parent]
        return sorted(found, key=lambda entry: entry[1].start_time_unix_nano)

    ((api, request),) = under(CLIENT_SPAN)
    assert (api, request.name) == ("streamline-api", "POST /v1/jobs")
    ((worker, job_span),) = under(request.span_id.hex())
    assert (worker, job_span.name) == ("streamline-worker", "job")
    ((_, attempt),) = under(job_span.span_id.hex())
    assert attempt.name == "attempt"
    assert [span.name for _, span in under(attempt.span_id.hex())] == STAGES
    for inner, outer in ((attempt, job_span), *((span, attempt) for _, span in under(attempt.span_id.hex()))):
        assert outer.start_time_unix_nano <= inner.start_time_unix_nano <= inner.end_time_unix_nano
        assert inner.end_time_unix_nano <= outer.end_time_unix_nano
    said = {attribute.key: attribute.value for _, span in spans.values() for attribute in span.attributes}
    assert said["streamline.job_id"].string_value == job["id"]
    assert said["streamline.request_id"].string_value == "traced"
    ended = [span for _, span in came if span.name == "job"]
    states = {
        attribute.value.string_value
        for span in ended
        for attribute in span.attributes
        if attribute.key == "streamline.state"
    }
    assert states == {"succeeded", "cancelled"}
