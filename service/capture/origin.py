"""From a request to what its captured images have in common."""

from __future__ import annotations

from fastapi import Request

from scoring.metadata import OperatingPoint
from service.capture.candidate import Origin
from service.models import Served
from service.stream_id import is_good, stream_id_of


def origin_of(request: Request, served: Served, point: OperatingPoint) -> Origin:
    """Where the images of this request come from, and what has scored them."""
    stream = stream_id_of(request)
    metadata = served.scorer.artifact.metadata
    return Origin(
        request_id=request.state.request_id,
        stream_id=stream if stream is not None and is_good(stream) else None,
        model=served.name,
        artifact_id=served.artifact_id,
        method=metadata.primary,
        class_names=metadata.classifier.class_names,
        point=point,
        thresholds=served.scorer.thresholds[point.name][metadata.primary],
    )
