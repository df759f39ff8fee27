"""What a model's calibration lets expect of each of its streams.

The bound on false alarms is shared out: half to the calibration set, whose rate may exceed its bound (delta), half to
the bets (a), and each half evenly to the operating points. So whichever of its operating points raises a stream's
alarm, it is a false one with probability at most a + delta = `false_alarm`.
"""

from __future__ import annotations

from scoring.artifact import Artifact
from service.monitoring.evidence import Evidence
from service.monitoring.limits import Limits
from service.monitoring.mixed_law import law_of
from service.monitoring.neighbourhoods import Neighbourhoods
from service.monitoring.score_bins import ScoreBins


class Baseline:
    """Made from one artifact.

    Args:
        artifact: with calibration scores and operating points.
        limits: how surely to alarm.

    Attributes:
        bins: of scores.
        groups: of predicted classes.
        laws: of rejects, by operating point.
        bounds: what the reject rate of in-distribution images is at most, by operating point; q in `evidence`.
        level: a of each operating point.
    """

    def __init__(self, artifact: Artifact, limits: Limits) -> None:
        groups, points = artifact.groups[artifact.metadata.primary], artifact.metadata.operating_points
        self.artifact_id = artifact.artifact_id
        self.limits = limits
        self.bins = ScoreBins(
            artifact.calibration_scores, {point.name: point.thresholds_of(groups) for point in points}
        )
        self.groups = Neighbourhoods(groups.counts)
        self.laws = {point.name: law_of(point, groups) for point in points}
        self.level = delta = limits.false_alarm / 2 / len(points)
        self.bounds = {name: law.bound(delta) for name, law in self.laws.items()}

    @property
    def cells(self) -> int:
        """How many pairs of bin and group there are."""
        return self.bins.count * self.groups.count

    def begin(self) -> dict[str, Evidence]:
        """No evidence yet, by operating point."""
        return {name: Evidence(bound, self.level) for name, bound in self.bounds.items()}
