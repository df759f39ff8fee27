"""Structured logs: one JSON object a line on stderr, with the ids of the request that it is about."""

from __future__ import annotations

import logging
import logging.config
import warnings

from pythonjsonlogger.core import RESERVED_ATTRS

from service.context import request_id, trace_id


class AddIds(logging.Filter):
    """Adds the current request's id, and that of its trace, to a record."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Let every record pass."""
        if current := request_id.get():
            record.request_id = current
        if traced := trace_id.get():
            record.trace_id = traced
        return True


def configure(level: str) -> None:
    """Send every log of this process through one handler."""
    logging.captureWarnings(True)
    # What Pillow finds odd in an image is its sender's affair; each would be a line here, and be remembered for ever.
    warnings.filterwarnings("ignore", module="PIL")
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "filters": {"ids": {"()": AddIds}},
            "formatters": {
                "json": {
                    "()": "pythonjsonlogger.json.JsonFormatter",
                    "fmt": "%(levelname)s %(name)s %(message)s",
                    "rename_fields": {"levelname": "level", "name": "logger"},
                    "timestamp": "time",
                    "reserved_attrs": [*RESERVED_ATTRS, "color_message"],  # uvicorn's, for terminals
                }
            },
            "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "json", "filters": ["ids"]}},
            "root": {"level": level.upper(), "handlers": ["stderr"]},
        }
    )
