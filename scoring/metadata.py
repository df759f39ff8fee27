"""The part of an artifact that is JSON: what was calibrated, how, on what. docs/artifact.md specifies it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveInt,
    ValidationError,
    model_serializer,
)

from scoring.classifier import Classifier
from scoring.conformal import Guarantee
from scoring.engines.engine import EngineChoice
from scoring.errors import ArtifactError
from scoring.groups import ByClass, ByGroup, ClassGroups
from scoring.preprocess import Preprocess

FORMAT_VERSION: Literal[1] = 1
METADATA_KEY = "line_ood"
NAME_PATTERN = r"[A-Za-z0-9_.-]{1,64}"  # of an operating point: it stands in addresses and in metrics

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Percentile = Annotated[float, Field(ge=0, lt=100)]
Alpha = Annotated[float, Field(gt=0, lt=1)]
Share = Annotated[float, Field(ge=0, le=1)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Method(_Part):
    """LINe's hyper-parameters: percentiles removed, clip δ (None: no clip), and which contribution was taken."""

    name: Literal["line"] = "line"
    variant: Literal["signed", "absolute"]
    p_a: Percentile
    p_w: Percentile
    clip: float | None
    clip_quantile: Annotated[float, Field(gt=0, lt=1)] | None = None


class OperatingPoint(_Part):
    """A named target false-reject rate on ID images, with the threshold on the primary score that keeps it.

    Attributes:
        guarantee: what is promised of alpha, see `scoring.conformal`.
        delta: share of calibration sets with which `pac` may fail; not looked at for `marginal`.
        threshold: None where predicted classes have thresholds of their own, `Metadata.alone_from`.
    """

    name: Annotated[str, Field(pattern=f"^{NAME_PATTERN}$")]
    alpha: Alpha
    guarantee: Guarantee
    delta: Alpha
    threshold: float | None

    def thresholds_of(self, groups: ClassGroups) -> ByClass:
        """For each predicted class the threshold that keeps the promise on the scores of a method.

        Raises:
            TooFewImagesError: there are too few.
        """
        return groups.thresholds(self.alpha, self.guarantee, self.delta)

    def ranks_of(self, groups: ClassGroups) -> ByGroup:
        """For each group l, of which its l-th largest score is the threshold.

        Raises:
            TooFewImagesError: there are too few.
        """
        return groups.ranks(self.alpha, self.guarantee, self.delta)


class ClassifierReference(_Part):
    """Which classifier was calibrated, and what its outputs are called."""

    spec: str
    class_names: list[str]
    class_folders: list[str]
    feature_count: PositiveInt


class Digests(_Part):
    """SHA-256 of what must not change between calibration and serving."""

    weights: Sha256
    preprocess: Sha256


def digests_of(classifier: Classifier) -> Digests:
    """Digests of a classifier that was loaded."""
    return Digests(weights=classifier.digest(), preprocess=classifier.preprocess.digest())


class DataCounts(_Part):
    """Images that made the masks, images that made the thresholds, and those that could not be read."""

    mask_images: PositiveInt
    calibration_images: PositiveInt
    unreadable: NonNegativeInt
    classes_without_images: NonNegativeInt


class Quality(_Part):
    """How good a calibration is: top-1 on held-out ID images, FPR95 on outliers that are made from them."""

    accuracy: Share
    fpr95: Share


class Quantisation(_Part):
    """The quantised network of an artifact, and what int8 changed: the whole calibration in float32 and in int8.

    Attributes:
        network: SHA-256 of the quantised network.
        compared_images: held-out ID images that both were measured on.
    """

    network: Sha256
    compared_images: PositiveInt
    float32: Quality
    int8: Quality


class Provenance(_Part):
    """Where the artifact comes from."""

    command: str
    created: str
    versions: dict[str, str]


class Metadata(_Part):
    """Everything in an artifact that is no tensor.

    Attributes:
        method: LINe's.
        methods: hyper-parameters of the other methods that were fitted, by name.
        combined: methods that are merged to one more, `scoring.combination`; none: there is no such.
        primary: the method whose score is published as `ood_score` and decides.
        alone_from: calibration images with which a predicted class has thresholds of its own, see `scoring.groups`;
            None: all classes share one.
        quantisation: there where `engine.precision` is int8, and nowhere else.
    """

    format_version: Literal[1] = FORMAT_VERSION
    method: Method
    methods: dict[str, dict[str, float]]
    combined: list[str]
    primary: str
    alone_from: PositiveInt | None
    operating_points: Annotated[list[OperatingPoint], Field(min_length=1)]
    classifier: ClassifierReference
    preprocess: Preprocess
    engine: EngineChoice
    digests: Digests
    data: DataCounts
    provenance: Provenance
    quantisation: Quantisation | None = None

    @model_serializer(mode="wrap")
    def _without_nothing(self, serialise: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        fields = serialise(self)
        if self.quantisation is None:
            fields.pop("quantisation", None)
        return fields


def parse_metadata(text: str) -> Metadata:
    """Read and check the JSON of an artifact.

    Raises:
        ArtifactError: the first field that is not as it has to be.
    """
    try:
        parsed = Metadata.model_validate_json(text, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"]) or f"metadata.{METADATA_KEY}"
        raise ArtifactError(field, first["msg"], repr(first["input"])[:200]) from error
    for field in _left_out(parsed):
        raise ArtifactError(field, "a value", "nothing")  # defaults are for writing: another version may have others
    return parsed


def _left_out(part: BaseModel, prefix: str = "") -> Iterator[str]:
    for name in type(part).model_fields:
        value = getattr(part, name)
        if name not in part.model_fields_set and name != "quantisation":  # whether it has to be there: see the artifact
            yield prefix + name
        elif isinstance(value, BaseModel):
            yield from _left_out(value, f"{prefix}{name}.")
