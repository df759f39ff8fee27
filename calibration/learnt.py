"""What the images of the masks teach: statistics of the features, the masks that follow, and a detector of these."""

from __future__ import annotations

from dataclasses import dataclass

from calibration.dataset import LabelledImages
from calibration.masks import build_masks, choose_method
from calibration.partial import Partial
from calibration.passes import collect_statistics
from calibration.settings import LineSettings
from calibration.statistics import FeatureStatistics
from calibration.walk import Pass
from scoring.classifier import Classifier
from scoring.detector import LineDetector, LineMasks
from scoring.metadata import Method
from scoring.methods import Sample


@dataclass(frozen=True, eq=False)
class Learnt:
    """The first half of a calibration, with one engine."""

    statistics: FeatureStatistics
    sample: Sample
    record: Pass
    method: Method
    masks: LineMasks
    detector: LineDetector


def learn(classifier: Classifier, images: LabelledImages, settings: LineSettings, partial: Partial) -> Learnt:
    """Go through the images once, and make the masks.

    Raises:
        DatasetError: no image can be read, features are not finite, or all would be clipped away.
    """
    statistics, sample, record = collect_statistics(classifier, images, partial)
    method = choose_method(statistics, settings)
    masks = build_masks(statistics, classifier.head.weight.cpu(), method)
    return Learnt(statistics, sample, record, method, masks, LineDetector(classifier.head, masks, method.clip))
