"""The span of a request, and below it those of its images' stages, by OpenTelemetry's semantic conventions for HTTP.

    POST /v1/predict ─┬─ decode      one an image
                      ├─ queue       one an image
                      └─ inference   one a forward pass that had images of this request

Those below are made when the answer has been sent, of the times that were noted on the way.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from itertools import zip_longest

from opentelemetry.context import Context
from opentelemetry.trace import SpanKind, Status, StatusCode, Tracer, format_trace_id, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from starlette.types import Scope

from service.batcher import Answer, Outcome
from service.problems import describe
from service.tracing.record import Record, TimedRead

PATH_LENGTH = 256  # of a path, which is the client's to choose, and waits in memory

Attributes = Mapping[str, str | int]

_PROPAGATOR = TraceContextTextMapPropagator()


class RequestSpan:
    """One request.

    Args:
        tracer: makes spans.
        scope: the request's; gets a record where the request is sampled.

    Attributes:
        trace_id: in hexadecimal, of unsampled ones, too; empty if OpenTelemetry is disabled.
    """

    def __init__(self, tracer: Tracer, scope: Scope) -> None:
        self._tracer = tracer
        self._zero_ns = time.time_ns() - round(1e9 * (started := time.monotonic()))
        self._span = tracer.start_span(
            scope["method"],
            context=_parent(scope["headers"]),
            kind=SpanKind.SERVER,
            attributes={
                "http.request.method": scope["method"],
                "url.path": scope["path"][:PATH_LENGTH],
                "url.scheme": scope["scheme"],
                "network.protocol.version": scope["http_version"],
            },
            start_time=self._ns(started),
        )
        context = self._span.get_span_context()
        self.trace_id = format_trace_id(context.trace_id) if context.is_valid else ""
        self._record = Record()
        if self._span.is_recording():
            scope.setdefault("state", {})["record"] = self._record

    def end(self, scope: Scope, status: int | None) -> int:
        """The request is over: make the spans, and say how many.

        Args:
            scope: the request's.
            status: of the answer, None without one.
        """
        if not self._span.is_recording():
            return 0
        ended = time.monotonic()
        if route := getattr(scope.get("route"), "path", None):
            self._span.update_name(f"{scope['method']} {route}")
            self._span.set_attribute("http.route", route)
        self._span.set_attributes(self._told(scope))
        if status is not None:
            self._span.set_attribute("http.response.status_code", status)
        if status is None or status >= 500:
            self._span.set_attribute("error.type", str(status or "no_answer"))
            self._span.set_status(Status(StatusCode.ERROR))
        count = self._add_images(ended) + self._add_passes(scope)
        self._span.end(self._ns(ended))
        return count + 1

    def _told(self, scope: Scope) -> Attributes:
        """What is known of the request, as far as it has come."""
        state, record = scope["state"], self._record
        told = {f"line_ood.{key}": state[key] for key in ("request_id", "model", "artifact_id") if key in state}
        if record.images:
            told["line_ood.images"] = len(record.images)
        if record.point is not None:
            told |= {"line_ood.operating_point": record.point.name, "line_ood.rejects": record.rejects}
        return told

    def _add_images(self, ended: float) -> int:
        count = 0
        for index, (image, outcome) in enumerate(zip_longest(self._record.images, self._record.outcomes)):
            own = {"line_ood.image": index}
            if image.begun_at is not None:
                self._add("decode", (image.begun_at, image.ended_at or ended), own, image.error)
                count += 1
            if (waited := _waited(image, outcome, ended)) is not None:
                self._add("queue", waited, own, None if isinstance(outcome, Answer) else _code(outcome))
                count += 1
        return count

    def _add_passes(self, scope: Scope) -> int:
        """A forward pass is shared by the requests that had images in it: each gets a span of the same times."""
        passes: dict[tuple[float, float, int], int] = {}
        for outcome in self._record.outcomes:
            if isinstance(outcome, Answer):
                key = outcome.started_at, outcome.inference_s, outcome.batch_size
                passes[key] = passes.get(key, 0) + 1
        of_model = {f"line_ood.{key}": scope["state"][key] for key in ("model", "artifact_id")} if passes else {}
        for (started, seconds, size), images in passes.items():
            own = {"line_ood.batch_size": size, "line_ood.images": images}
            self._add("inference", (started, started + seconds), own | of_model)
        return len(passes)

    def _add(self, name: str, times: tuple[float, float], attributes: Attributes, error: str | None = None) -> None:
        begin, end = times
        span = self._tracer.start_span(
            name, set_span_in_context(self._span), attributes=attributes, start_time=self._ns(begin)
        )
        if error is not None:
            span.set_attribute("error.type", error)
            span.set_status(Status(StatusCode.ERROR))
        span.end(self._ns(end))

    def _ns(self, monotonic: float) -> int:
        """Time of day: one difference for all spans of a request, or a clock that is set would tear them apart."""
        return self._zero_ns + round(1e9 * monotonic)


def _parent(headers: Iterable[tuple[bytes, bytes]]) -> Context:
    """What the W3C's headers say; nothing where they are not valid, and a new trace begins."""
    found: dict[str, list[str]] = {"traceparent": [], "tracestate": []}
    for name, value in headers:
        if name in (b"traceparent", b"tracestate"):
            found[name.decode()].append(value.decode("latin-1"))
    if len(found["traceparent"]) != 1:  # several are not valid either
        return Context()
    return _PROPAGATOR.extract(found, Context())


def _waited(image: TimedRead, outcome: Outcome | None, ended: float) -> tuple[float, float] | None:
    """From when to when an image waited for the device.

    One without an answer has waited to the end: whether it was in a forward pass by then is not known.
    """
    if isinstance(outcome, Answer):
        return outcome.queued_at, outcome.started_at
    if image.error is not None or (image.begun_at is not None and image.ended_at is None):
        return None
    if image.begun_at is None and outcome is not None:  # there was no image in the request
        return None
    return image.ended_at or image.asked_at, ended


def _code(outcome: Outcome | None) -> str | None:
    return describe(outcome).kind.code if isinstance(outcome, Exception) else None
