"""What LINe learns of the images' statistics with some settings: its masks, and a detector that has them."""

from __future__ import annotations

from dataclasses import dataclass

from calibration.masks import build_masks, choose_method
from calibration.settings import LineSettings
from calibration.statistics import FeatureStatistics
from scoring.detector import LineDetector, LineMasks
from scoring.metadata import Method
from scoring.types import Head


@dataclass(frozen=True, eq=False)
class Learnt:
    """LINe, ready to score."""

    method: Method
    masks: LineMasks
    detector: LineDetector


def learn(statistics: FeatureStatistics, head: Head, settings: LineSettings) -> Learnt:
    """Make the masks.

    Args:
        statistics: of the features of ID images.
        head: of the classifier, on the device where it will score.
        settings: LINe's.

    Raises:
        DatasetError: all features would be clipped away.
    """
    method = choose_method(statistics, settings)
    masks = build_masks(statistics, head.weight.cpu(), method)
    return Learnt(method, masks, LineDetector(head, masks, method.clip))
