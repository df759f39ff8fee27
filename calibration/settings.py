"""What a calibration is asked for: LINe's hyper-parameters and the rates to keep."""

from __future__ import annotations

from dataclasses import dataclass

DEFAULT_ALPHA = 0.05
AUTO = "auto"  # the primary that the data choose
INT8_TOLERANCE = 0.01  # one point of top-1 or of FPR95


@dataclass(frozen=True)
class LineSettings:
    """LINe's hyper-parameters.

    Attributes:
        p_a: percentile of neurons removed.
        p_w: percentile of weights removed.
        clip: δ, or None: the quantile below.
        clip_quantile: δ as a quantile of the feature values of the calibration images, or None.
    """

    p_a: float = 10
    p_w: float = 10
    clip: float | None = None
    clip_quantile: float | None = 0.95


# The settings of the authors' scripts (repository commit 465ddf5), one network each.
PRESETS = {
    "line-imagenet": LineSettings(p_a=10, p_w=10, clip=0.8, clip_quantile=None),
    "line-cifar10": LineSettings(p_a=90, p_w=90, clip=1.0, clip_quantile=None),
    "line-cifar100": LineSettings(p_a=10, p_w=90, clip=1.0, clip_quantile=None),
}
