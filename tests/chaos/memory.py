"""What a process has resident, and whether that grows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Growth(NamedTuple):
    """A straight line through measurements, over their whole length."""

    mb: float
    noise_mb: float  # so far the measurements are from the line: the standard deviation
    resident_mb: float  # at the end

    def __str__(self) -> str:
        return f"{self.mb:+.1f} MB ± {self.noise_mb:.1f} of {self.resident_mb:.0f}"


def growth(resident_mb: Sequence[float]) -> Growth:
    """Of measurements that were taken at equal distances."""
    places = np.arange(len(resident_mb))
    slope, offset = np.polyfit(places, resident_mb, 1)
    noise = float(np.std(np.asarray(resident_mb) - slope * places - offset))
    return Growth(float(slope * (len(resident_mb) - 1)), noise, resident_mb[-1])
