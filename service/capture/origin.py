"""From a request to what its captured images have in common."""

from __future__ import annotations

import re

from fastapi import Request

from scoring.metadata import OperatingPoint
from service.capture.candidate import Origin
from service.models import Served

_GOOD_STREAM = re.compile(r"[A-Za-z0-9_.:-]{1,64}")  # what is no such id is not kept: it would be unbounded


def origin_of(request: Request, served: Served, point: OperatingPoint) -> Origin:
    """Where the images of this request come from, and what has scored them."""
    stream = request.headers.get("x-stream-id", "")
    metadata = served.scorer.artifact.metadata
    return Origin(
        request_id=request.state.request_id,
        stream_id=stream if _GOOD_STREAM.fullmatch(stream) else None,
        model=served.name,
        artifact_id=served.artifact_id,
        method=metadata.primary,
        class_names=metadata.classifier.class_names,
        point=point,
        thresholds=served.scorer.thresholds[point.name][metadata.primary],
    )
