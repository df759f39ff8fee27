"""The shapes that signatures are spelled in.

Axes: batch (images), class (K), feature (D), height, width.
"""

from __future__ import annotations

from typing import NamedTuple

from jaxtyping import Bool, Float, Float32, Float64, Int64, UInt8
from torch import Tensor

Pixels = UInt8[Tensor, "3 height width"]
PixelBatch = UInt8[Tensor, "batch 3 height width"]
Images = Float[Tensor, "batch 3 height width"]
Features = Float[Tensor, "batch feature"]
Logits = Float[Tensor, "batch class"]
Scores = Float[Tensor, "batch"]
Classes = Int64[Tensor, "batch"]
HeadWeight = Float32[Tensor, "class feature"]
HeadBias = Float32[Tensor, "class"]
ClassMeans = Float64[Tensor, "class feature"]
ClassCounts = Int64[Tensor, "class"]
Contribution = Float32[Tensor, "class feature"]
ClassContribution = Float32[Tensor, "feature"]
ActivationMask = Bool[Tensor, "class feature"]
WeightThresholds = Float64[Tensor, "class"]
WeightFloors = Float32[Tensor, "class feature"]


class Head(NamedTuple):
    """The linear layer that a classifier ends in: logits = h W^T + b."""

    weight: HeadWeight
    bias: HeadBias
