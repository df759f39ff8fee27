"""An image that was chosen, on its way to the target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from scoring.groups import ByClass
from scoring.images import media_type
from scoring.metadata import OperatingPoint
from service.capture.record import Reason, Record


@dataclass(frozen=True, slots=True)
class Origin:
    """What the images of one request have in common.

    Attributes:
        thresholds: of the operating point that decides, by predicted class.
    """

    request_id: str
    stream_id: str | None
    model: str
    artifact_id: str
    method: str
    class_names: Sequence[str]
    point: OperatingPoint
    thresholds: ByClass


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """An image that was chosen, as it was sent, with what became of it."""

    data: bytes
    reason: Reason
    time: datetime
    origin: Origin
    image_index: int
    class_index: int
    probability: float
    ood_score: float
    p_value: float
    threshold: float

    def record(self, sha256: str) -> Record:
        """Its side file."""
        return Record(
            time=self.time,
            reason=self.reason,
            model=self.origin.model,
            artifact_id=self.origin.artifact_id,
            request_id=self.origin.request_id,
            image_index=self.image_index,
            stream_id=self.origin.stream_id,
            class_index=self.class_index,
            class_name=self.origin.class_names[self.class_index],
            probability=self.probability,
            method=self.origin.method,
            ood_score=self.ood_score,
            p_value=self.p_value,
            threshold=self.threshold,
            operating_point=self.origin.point.name,
            content_type=media_type(self.data),
            bytes=len(self.data),
            sha256=sha256,
        )
