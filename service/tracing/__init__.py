"""W3C trace context in, OpenTelemetry spans out, where a collector is named; otherwise nothing of it is imported.

    request ─▶ pipeline, whose times a record takes ─▶ answer ─▶ spans ─▶ [bounded queue] ─▶ thread ─▶ collector

Only `start` and `record` can be imported without the extra `otel`.
"""
