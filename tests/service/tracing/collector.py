"""A real OTLP endpoint over HTTP: takes what exporters send, parses the protobuf, and can be in any trouble."""

from __future__ import annotations

import gzip
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1 import trace_pb2

PATIENCE_S = 20


@dataclass(frozen=True)
class Span:
    """One span as the collector sees it; times in nanoseconds since the epoch."""

    name: str
    trace: str
    id: str
    parent: str
    start: int
    end: int
    kind: int
    is_error: bool
    state: str
    attributes: dict[str, Any]
    resource: dict[str, Any]

    @property
    def status(self) -> int | None:
        return self.attributes.get("http.response.status_code")


class Collector:
    """What has arrived, and how the next batches are treated.

    Attributes:
        status: of its answers.
        gate: while it is closed, nothing is answered.
        headers: of the last request.
    """

    def __init__(self) -> None:
        self.status = 200
        self.gate = threading.Event()
        self.gate.set()
        self.spans: list[Span] = []
        self.headers: Mapping[str, str] = {}
        self.asked = 0
        self.url = ""

    def wait(self, found: Callable[[list[Span]], bool]) -> list[Span]:
        """The spans, once they are as wanted."""
        end = time.monotonic() + PATIENCE_S
        while not found(spans := list(self.spans)):
            assert time.monotonic() < end, f"not within {PATIENCE_S} s; there is {spans}"
            time.sleep(0.02)
        return spans

    def trace_of(self, request: str, status: int | None = 200) -> list[Span]:
        """The spans of a request by its id, its own first, then by time; below it all are sent before it or with it."""

        def own(spans: list[Span]) -> list[Span]:
            return [span for span in spans if span.attributes.get("line_ood.request_id") == request]

        (root,) = own(self.wait(lambda spans: bool(own(spans))))
        assert root.status == status
        below = [span for span in self.spans if span.parent == root.id]
        return [root, *sorted(below, key=lambda span: (span.start, span.name))]

    def take(self, body: bytes) -> None:
        for of_resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            resource = _plain(of_resource.resource.attributes)
            for scope in of_resource.scope_spans:
                self.spans.extend(_span(span, resource) for span in scope.spans)


@contextmanager
def collecting() -> Iterator[Collector]:
    """A collector on a free port."""
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            collector.asked += 1
            if not collector.gate.wait(PATIENCE_S):
                return
            if self.path != "/v1/traces" or self.headers["Content-Type"] != "application/x-protobuf":
                self._answer(404)
                return
            if collector.status == 200:
                collector.headers = dict(self.headers)
                collector.take(gzip.decompress(body) if self.headers["Content-Encoding"] == "gzip" else body)
            self._answer(collector.status)

        def _answer(self, status: int) -> None:
            content = ExportTraceServiceResponse().SerializeToString()
            self.send_response(status)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """The tests look at what arrives."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            """A server that was told to end has hung up."""

    server = Server(("127.0.0.1", 0), Handler)
    collector.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield collector
    finally:
        collector.gate.set()
        server.shutdown()
        thread.join()
        server.server_close()


def _span(span: trace_pb2.Span, resource: dict[str, Any]) -> Span:
    return Span(
        name=span.name,
        trace=span.trace_id.hex(),
        id=span.span_id.hex(),
        parent=span.parent_span_id.hex(),
        start=span.start_time_unix_nano,
        end=span.end_time_unix_nano,
        kind=span.kind,
        is_error=span.status.code == trace_pb2.Status.STATUS_CODE_ERROR,
        state=span.trace_state,
        attributes=_plain(span.attributes),
        resource=resource,
    )


def _plain(attributes: list[KeyValue]) -> dict[str, Any]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in attributes}
