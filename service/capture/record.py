"""What is known of an image that is kept: the content of its side file, JSON, which docs/capture.md specifies."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

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
