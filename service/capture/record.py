"""What is known of an image that is kept: the content of its side file, JSON, which docs/capture.md specifies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Literal, get_args

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from scoring.images import media_type
from scoring.metadata import OperatingPoint

Reason = Literal["reject", "borderline", "random"]
ContentType = Literal["image/jpeg", "image/png", "image/webp", "image/bmp"]
REASONS: tuple[Reason, ...] = get_args(Reason)

Probability = Annotated[float, Field(ge=0, le=1)]
Finite = Annotated[float, Field(allow_inf_nan=False)]


class Record(BaseModel):
    """A side file. Fields that a later version adds are passed over."""

    model_config = ConfigDict(frozen=True)

    schema_version: Literal[1] = 1
    time: AwareDatetime
    reason: Reason
    model: str
    artifact_id: str
    request_id: str
    image_index: Annotated[int, Field(ge=0)]  # among the images of the request
    stream_id: str | None
    class_index: Annotated[int, Field(ge=0)]
    class_name: str
    probability: Probability
    method: str
    ood_score: Finite
    p_value: Probability
    threshold: Finite
    operating_point: str
    content_type: ContentType
    bytes: Annotated[int, Field(gt=0)]
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


@dataclass(frozen=True, slots=True)
class Origin:
    """What the images of one request have in common."""

    request_id: str
    stream_id: str | None
    model: str
    artifact_id: str
    method: str
    class_names: Sequence[str]
    point: OperatingPoint


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
