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
    threshold: Annotated[float, Field(description="Of the operating point that was asked for and the predicted class.")]
    p_value: Annotated[
        float, Field(description="Share of the in-distribution images of its group at least as far out.")
    ]
    margin: Annotated[float, Field(description="threshold - score: negative for a rejected image.")]
    reject: Annotated[bool, Field(description="score > threshold.")]


class MethodResult(TypedDict):
    """What one method says, at the operating point that was asked for, with the threshold of the predicted class."""

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


class ModelPoint(TypedDict):
    """An operating point of a model."""

    name: str
    alpha: float
    guarantee: str
    threshold: Annotated[float | None, Field(description="None where every predicted class has its own.")]


class ShadowDecision(TypedDict):
    """How many images were decided so by the version that answered and so by the shadow."""

    operating_point: str
    served: str
    shadow: str
    images: int


class ShadowState(TypedDict):
    """A shadow, and what came of comparing it with the version that answers, since either was loaded."""

    artifact_id: str
    method: str
    loaded_at: str
    share: Annotated[float, Field(description="Of the answered images that it is offered.")]
    waiting: int
    scored: int
    dropped: Annotated[int, Field(description="It was behind.")]
    failed: int
    class_disagreements: int
    decisions: list[ShadowDecision]


class ModelState(TypedDict):
    """A model that is served."""

    name: str
    default: Annotated[bool, Field(description="/v1/predict asks this one.")]
    state: Annotated[str, Field(description="starting, ready, draining, or dead: the process has to be restarted.")]
    loading: Annotated[bool, Field(description="Its file is being loaded anew; this version answers meanwhile.")]
    artifact_id: str
    method: str
    operating_points: Annotated[list[ModelPoint], Field(description="The first one is the default.")]
    loaded_at: str
    shadow: NotRequired[ShadowState]


class ModelsResponse(TypedDict):
    """All models, the default first."""

    models: list[ModelState]


class LoadResponse(TypedDict):
    """How a load ended."""

    name: str
    outcome: Annotated[str, Field(description="switched, or unchanged: the file holds what is served already.")]
    artifact_id: Annotated[str, Field(description="What answers from now on.")]
    previous: Annotated[str, Field(description="What answered before.")]


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
