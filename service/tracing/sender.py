"""Sends spans to the collector, in the batch processor's thread; a collector in trouble is told once a minute."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from opentelemetry.exporter.otlp.proto.http import trace_exporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult

from service.complaint import Complaint

log = logging.getLogger(__name__)


class ExportError(Exception):
    """What the exporter said of a batch that it could not send."""


class Sender(OTLPSpanExporter):
    """OTLP over HTTP, in protobuf.

    Args:
        endpoint: the collector's base URL.

    Attributes:
        sent: spans that the collector has taken.
    """

    def __init__(self, endpoint: str) -> None:
        super().__init__(endpoint=f"{endpoint.removesuffix('/')}/v1/traces")
        self.sent = 0
        self._failing = Complaint(log, f"sending spans to {endpoint} fails")
        self._heard = _Heard()
        logging.getLogger(trace_exporter.__name__).addFilter(self._heard)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send a batch, or lose it: there is no place for those that fail."""
        result = super().export(spans)
        if result is SpanExportResult.SUCCESS:
            self.sent += len(spans)
            self._failing.end()
        else:
            self._failing.tell(ExportError(self._heard.last))
        return result


class _Heard(logging.Filter):
    """Keeps the exporter's reasons for the complaint, and its lines, several a batch, from the log."""

    last = ""

    def filter(self, record: logging.LogRecord) -> bool:
        """Let nothing pass."""
        self.last = record.getMessage()
        return False
