"""A batch of images in, what the service answers out: classifier and artifact bound together."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Int64

from scoring.artifact import Artifact
from scoring.classifier import Classifier, load_classifier
from scoring.conformal import FloatArray
from scoring.detector import LineDetector
from scoring.engines.engine import EngineChoice, Precision
from scoring.ensemble import restore_ensemble
from scoring.errors import ArtifactError, EngineError, SelfTestError
from scoring.metadata import OperatingPoint, digests_of
from scoring.probes import probe_pixels
from scoring.spec import load_spec
from scoring.types import PixelBatch, Scores

# What the self-test allows, as a share of the distance from the 5 % to the 95 % quantile of the calibration scores.
# Between processors float32 rounds differently, and the others more so.
PROBE_TOLERANCES: dict[Precision, float] = {"float32": 0.01, "bfloat16": 0.05, "int8": 0.05}

NOT_FINITE = "the classifier's answer is not a finite number"


@dataclass(frozen=True, slots=True)
class Prediction:
    """One of the classifier's own guesses: argmax of its logits, never of LINe's."""

    index: int
    name: str
    probability: float


@dataclass(frozen=True, slots=True)
class Decision:
    """What one operating point says of one image.

    Attributes:
        threshold: of the image's predicted class; reject above it.
        margin: threshold - ood_score; negative for a rejected image.
        reject: ood_score > threshold, the same as p_value <= alpha.
    """

    threshold: float
    margin: float
    reject: bool


@dataclass(frozen=True, slots=True, eq=False)
class ImageScore:
    """All that is known of one image.

    Attributes:
        probabilities: softmax of the classifier's logits (class), in float64, where the runners-up
            of a sure network keep their order.
        ood_score: of the primary method; higher = more out-of-distribution.
        p_value: share of ID images at least as far out, see `scoring.conformal` and `scoring.groups`.
        predicted: argmax of the classifier's logits, the class whose thresholds decide.
        methods: score and p-value of each method that was asked for, the primary among them.
    """

    probabilities: npt.NDArray[np.float64]
    ood_score: float
    p_value: float
    predicted: int
    methods: dict[str, tuple[float, float]] = field(default_factory=dict)

    @property
    def is_finite(self) -> bool:
        """False where the network answered with NaN or infinity: such an image has no score."""
        scores = (self.ood_score, *(score for score, _ in self.methods.values()))
        return all(map(math.isfinite, scores)) and bool(np.isfinite(self.probabilities).all())


class Scorer:
    """Scores batches with the masks and thresholds of one artifact.

    Args:
        classifier: the classifier that the artifact was calibrated with.
        artifact: its artifact.

    Attributes:
        thresholds: by operating point, then by method, then by predicted class.

    Raises:
        DigestMismatchError: they do not belong together.
        ArtifactError: the artifact's shapes are not the classifier's.
    """

    def __init__(self, classifier: Classifier, artifact: Artifact) -> None:
        artifact.check_classifier(digests_of(classifier))
        wanted, found = tuple(classifier.head.weight.shape), tuple(artifact.masks.contribution.shape)
        if wanted != found:
            raise ArtifactError("contribution", f"shape {wanted}", found)
        self.classifier = classifier
        self.artifact = artifact
        line = LineDetector(classifier.head, artifact.masks, artifact.metadata.method.clip)
        self.ensemble = restore_ensemble(
            classifier.head, line, artifact.metadata.methods, artifact.metadata.combined, artifact.learnt
        )
        self.thresholds = {point.name: artifact.thresholds(point) for point in artifact.metadata.operating_points}
        self._primary = artifact.metadata.primary

    @classmethod
    def load(
        cls,
        path: Path,
        device: torch.device,
        *,
        model: str | None = None,
        weights: Path | None = None,
        engine: EngineChoice | None = None,
    ) -> Scorer:
        """Load an artifact and the classifier that it names, or that `model` names; the digest rules.

        Args:
            path: the artifact.
            device: where to run.
            model: SPEC to load instead of the artifact's.
            weights: file with the classifier's weights.
            engine: another one than the artifact was calibrated with; `probe_deviations` says what that costs.

        Raises:
            LineOodError: the artifact, the SPEC or the weights are not usable, or do not belong together.
            EngineError: the engine cannot be used here.
            SelfTestError: it scores otherwise than calibrated.
        """
        artifact = Artifact.load(path)
        parts = load_spec(model or artifact.metadata.classifier.spec, weights)
        choice = engine or artifact.metadata.engine
        try:
            classifier = load_classifier(parts, device, artifact.metadata.preprocess, choice, artifact.quantised)
        except EngineError as error:
            if engine:
                raise
            raise EngineError(
                f"the artifact was calibrated with {choice}: {error}; --engine serves with another one, at other scores"
            ) from error
        scorer = cls(classifier, artifact)
        if choice == artifact.metadata.engine:
            scorer.check_probes()
        return scorer

    def probe_deviations(self) -> FloatArray:
        """How far `ood_score` is from the calibrated one on each of the images of `scoring.probes`."""
        return self._probe_deviations()[self._primary]

    def check_probes(self) -> None:
        """Make sure that this is the path that was calibrated: network, preprocessing, engine, libraries, processor.

        By every method of the artifact: a clip, or a mask, makes one of them blind to what another one sees.

        Raises:
            SelfTestError: half of the probe images or more deviate by more than the tolerance.
        """
        tolerance = PROBE_TOLERANCES[self.artifact.metadata.engine.precision]
        for name, deviations in self._probe_deviations().items():
            low, high = np.quantile(self.artifact.scores[name], (0.05, 0.95))
            allowed = tolerance * max(high - low, np.finfo(np.float32).eps * abs(high))
            # The median: one image whose routed class ties may jump on another processor, a wrong path moves them all.
            deviation = float(np.median(deviations))
            if not deviation <= allowed:
                raise SelfTestError(
                    f"self-test: by {name} the probe images score {deviation:.2g} (median) away from what was "
                    f"calibrated, {allowed:.2g} is allowed: network, preprocessing or engine is not what it was then"
                )

    def _probe_deviations(self) -> dict[str, FloatArray]:
        found = self.score(probe_pixels(self.classifier.preprocess.crop), every=True)
        return {
            name: np.abs([score.methods[name][0] for score in found] - wanted)
            for name, wanted in self.artifact.probes.items()
        }

    @torch.inference_mode()
    def score(self, pixels: PixelBatch, *, alone: bool = True, every: bool = False) -> list[ImageScore]:
        """Score a batch; rows that are not finite are for the caller to refuse, see `ImageScore.is_finite`.

        Args:
            pixels: on any device.
            alone: see `Engine.features`.
            every: by all methods of the artifact, not by the primary alone.
        """
        names = self.ensemble.names if every else (self._primary,)
        logits, scores = self.ensemble.score(self.classifier.features(pixels, alone=alone), names)
        probabilities = logits.double().softmax(1).cpu().numpy()
        predicted = logits.argmax(1).cpu().numpy()  # as in the calibration: it says whom an image is compared with
        columns = {name: self._with_p_values(name, own, predicted) for name, own in scores.items()}
        return [
            ImageScore(
                probabilities[row],
                *columns[self._primary][row],
                predicted=own_class,
                methods={name: own[row] for name, own in columns.items()},
            )
            for row, own_class in enumerate(predicted.tolist())
        ]

    def _with_p_values(
        self, name: str, scores: Scores, predicted: Int64[np.ndarray, "batch"]
    ) -> list[tuple[float, float]]:
        found = scores.double().cpu().numpy()
        p_values = self.artifact.groups[name].p_values(found, predicted)
        return list(zip(found.tolist(), p_values.tolist(), strict=True))

    def decide(self, score: ImageScore, point: OperatingPoint) -> Decision:
        """What one operating point says of an image, by the primary method."""
        return self._decide(self._primary, score.ood_score, score.predicted, point)

    def decide_each(self, score: ImageScore, point: OperatingPoint) -> dict[str, Decision]:
        """The same by each method that was asked for."""
        scores = {name: own for name, (own, _) in score.methods.items()}
        return {name: self._decide(name, own, score.predicted, point) for name, own in scores.items()}

    def _decide(self, method: str, ood_score: float, predicted: int, point: OperatingPoint) -> Decision:
        threshold = self.thresholds[point.name][method].item(predicted)
        return Decision(threshold, threshold - ood_score, reject=ood_score > threshold)

    def predictions(self, score: ImageScore, top_k: int) -> list[Prediction]:
        """The `top_k` most probable classes, the most probable first; fewer where there are fewer classes."""
        names, probabilities = self.artifact.metadata.classifier.class_names, score.probabilities
        last = max(len(probabilities) - top_k, 0)
        (candidates,) = np.nonzero(probabilities >= np.partition(probabilities, last)[last])  # few: sorting all is slow
        order = candidates[np.argsort(-probabilities[candidates], kind="stable")][:top_k]
        return [Prediction(k, names[k], float(probabilities[k])) for k in order.tolist()]
