"""Tracing, if the settings ask for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scoring.errors import LineOodError
from service.settings import Settings

if TYPE_CHECKING:
    from service.tracing.tracing import Tracing


def start_tracing(settings: Settings) -> Tracing | None:
    """Be ready to send spans to the collector of the settings; None where they name none.

    Raises:
        LineOodError: the packages of the extra `otel` are missing.
    """
    if settings.otlp_endpoint is None:
        return None
    try:
        from service.tracing.tracing import Tracing  # noqa: PLC0415 - optional, and a second of importing
    except ImportError as error:
        raise LineOodError(f"--otlp-endpoint needs OpenTelemetry: pip install 'line-ood[otel]' ({error})") from error
    return Tracing(settings.otlp_endpoint)
