"""From statistics to masks: which variant of the contribution, which clip, and the thresholds of every class."""

from __future__ import annotations

from calibration.settings import LineSettings
from calibration.statistics import FeatureStatistics
from calibration.thresholds import weight_thresholds
from scoring import line
from scoring.detector import LineMasks
from scoring.errors import DatasetError
from scoring.metadata import Method
from scoring.types import HeadWeight


def choose_method(statistics: FeatureStatistics, settings: LineSettings) -> Method:
    """Settle what the data decide: a clip given as a quantile, and the variant that fits the features' signs.

    Raises:
        DatasetError: the quantile is not above 0.
    """
    clip = settings.clip
    if settings.clip_quantile is not None:
        clip = statistics.quantile(settings.clip_quantile)
        if clip <= 0:
            raise DatasetError(
                f"the {settings.clip_quantile:g} quantile of the features is {clip:g}: all would be clipped away; "
                "give --clip, or a larger --clip-quantile"
            )
    return Method(
        variant="absolute" if statistics.has_negative else "signed",
        p_a=settings.p_a,
        p_w=settings.p_w,
        clip=clip,
        clip_quantile=settings.clip_quantile,
    )


def build_masks(statistics: FeatureStatistics, weight: HeadWeight, method: Method) -> LineMasks:
    """Contributions, activation mask and weight thresholds of every class."""
    if method.variant == "signed":
        means = line.fill_empty_classes(statistics.means, statistics.counts)
        contribution = line.signed_contribution(means, weight)
    else:
        means = line.fill_empty_classes(statistics.abs_means, statistics.counts)
        contribution = line.absolute_contribution(means, weight)
    return LineMasks(
        contribution,
        line.activation_mask(contribution, method.p_a),
        weight_thresholds(contribution, weight, method.p_w),
        method.p_a,
    )
