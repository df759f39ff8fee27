"""What travels over HTTP, apart from images and problems.

What comes in is validated by pydantic. What goes out is dictionaries that mypy checks: validating our own answers would
cost more than writing them.
"""

from __future__ import annotations

from typing import Annotated, NotRequired

from pydantic import BaseModel, FailFast, Field
from typing_extensions import TypedDict  # pydantic wants this one before Python 3.12

MAX_INSTANCES = 1000  # images in one request, whatever the settings allow


class Instance(BaseModel):
    """One image of a JSON body."""

    b64: Annotated[str, Field(description="The encoded image in base64.")]


class Instances(BaseModel):
    """A JSON body. Fails at its first mistake: a list of a million would cost seconds and gigabytes."""

    instances: Annotated[list[Instance], Field(min_length=1, max_length=MAX_INSTANCES), FailFast()]


class PredictedClass(TypedDict):
    """One of the classifier's guesses."""

    index: int
    name: str
    probability: float


class OodResult(TypedDict):
    """Whether the classifier should be trusted on this image."""

    method: str
    score: Annotated[float, Field(description="ood_score: higher = more out-of-distribution.")]
    threshold: Annotated[float, Field(description="Of the operating point that was asked for.")]
    p_value: Annotated[float, Field(description="Share of in-distribution images at least as far out.")]
    margin: Annotated[float, Field(description="threshold - score: negative for a rejected image.")]
    reject: Annotated[bool, Field(description="score > threshold.")]


class MethodResult(TypedDict):
    """What one method says, at the operating point that was asked for."""

    score: float
    threshold: float
    p_value: float
    reject: bool


class ImageErrorDetail(TypedDict):
    """Why one image of several has no result."""

    index: NotRequired[Annotated[int, Field(description="Its place, from 0, where not every image has an entry.")]]
    status: int
    code: str
    detail: str


class ImageResult(TypedDict):
    """One image's answer."""

    predictions: list[PredictedClass]
    ood: OodResult
    methods: NotRequired[Annotated[dict[str, MethodResult], Field(description="With `methods=all`: of each, by name.")]]


class FailedImage(TypedDict):
    """One image's failure, among others that went well."""

    error: ImageErrorDetail


class ModelName(TypedDict):
    """Who answers."""

    name: str
    artifact_id: str


class Timings(TypedDict):
    """Where the time went, in milliseconds."""

    decode: float
    queue: float
    inference: float
    total: float


class PredictResponse(TypedDict):
    """The answer to a prediction: one result an image, in the order of the request."""

    request_id: str
    model: ModelName
    results: list[ImageResult | FailedImage]
    timings_ms: Timings


class Health(BaseModel):
    """The answer of the health checks."""

    status: str
    detail: str = ""


class ProblemDetail(BaseModel):
    """An error, RFC 9457."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    code: str
    request_id: str
    error: str
    errors: list[ImageErrorDetail] | None = None
