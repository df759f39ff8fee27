"""X-Stream-ID: what a client calls the camera, or whatever its images come from."""

from __future__ import annotations

import re

from fastapi import Request

_GOOD = re.compile(r"[A-Za-z0-9_.:-]{1,64}")  # as a label of metrics and in files: short, and harmless


def stream_id_of(request: Request) -> str | None:
    """What the client says, whatever it is; None if it says nothing."""
    return request.headers.get("x-stream-id")


def is_good(stream_id: str) -> bool:
    """Whether it is one that is kept."""
    return _GOOD.fullmatch(stream_id) is not None
