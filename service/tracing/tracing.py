"""OpenTelemetry as this process uses it: one provider, not the global one, which other packages would write to, too.

Sampler, service name, resource, headers and sizes come from the standard OTEL_* variables, which the SDK reads itself.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable
from importlib.metadata import version

from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector
from starlette.types import Scope

from service.tracing.request_span import RequestSpan
from service.tracing.sender import Sender

log = logging.getLogger(__name__)

FLUSH_S = 1.0  # for the spans that still wait at the end


class Tracing(Collector):
    """Makes spans of requests and sends them. Belongs to the event loop's thread, but for `collect` and `stop`.

    Args:
        endpoint: the collector's base URL.
    """

    def __init__(self, endpoint: str) -> None:
        self._sender = Sender(endpoint)
        own = Resource({"service.name": "line-ood", "service.version": version("line-ood")})
        resource = Resource.create().merge(own).merge(OTELResourceDetector().detect())  # the environment is strongest
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)  # `stop` is bounded, that is not
        self._provider.add_span_processor(BatchSpanProcessor(self._sender))
        self._tracer = self._provider.get_tracer("line-ood", version("line-ood"))
        self._made = 0
        # What it says of the environment has been said; of headers that clients send it would say a line for each.
        logging.getLogger("opentelemetry").setLevel(logging.ERROR)

    def begin(self, scope: Scope) -> RequestSpan:
        """A request has come."""
        return RequestSpan(self._tracer, scope)

    def end(self, span: RequestSpan, scope: Scope, status: int | None) -> None:
        """It has been answered, or has not, and then has no status."""
        self._made += span.end(scope, status)

    def collect(self) -> Iterable[Metric]:
        """What Prometheus is told; what is made and not sent was lost, or waits in a queue that is bounded."""
        yield CounterMetricFamily("line_ood_spans", "Spans of sampled requests.", value=self._made)
        yield CounterMetricFamily("line_ood_spans_sent", "Spans that the collector has taken.", value=self._sender.sent)

    def stop(self, timeout_s: float) -> bool:
        """Send what waits, within `FLUSH_S` and `timeout_s`; false if the collector has not taken it by then."""
        thread = threading.Thread(target=self._provider.shutdown, name="tracing-end", daemon=True)
        thread.start()
        thread.join(max(min(timeout_s, FLUSH_S), 0))
        if thread.is_alive():
            log.warning("the server stops before all spans are sent")
        return not thread.is_alive()
