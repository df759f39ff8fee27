"""LINe's settings and the primary score, settled by the data: on the sample of the masks' images and on outliers.

Neither sees an image of the thresholds, whose promise would be broken. docs/tuning.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from calibration.candidates import score_candidates
from calibration.folds import Outliers, split
from calibration.primary import Choice, choose
from calibration.roster import Roster
from calibration.search import Search
from calibration.settings import LineSettings
from scoring.methods import Sample
from scoring.types import Head


@dataclass(frozen=True, eq=False)
class Tuning:
    """What was found.

    Attributes:
        outliers: how many of each kind there were.
        search: for LINe's settings; None where nobody asked.
        settings: LINe's, found or given.
        choice: how all scores compare with these settings.
    """

    outliers: dict[str, int]
    search: Search | None
    settings: LineSettings
    choice: Choice

    @property
    def warnings(self) -> tuple[str, ...]:
        """What to know before relying on it."""
        return (*(self.search.notes if self.search else ()), *self.choice.warnings)


def compare(
    sample: Sample,
    outliers: Mapping[str, Outliers],
    head: Head,
    roster: Roster,
    *,
    settings: LineSettings,
    search: Search | None,
    primary: str | None,
) -> Tuning:
    """Compare all scores.

    Args:
        sample: ID images.
        outliers: by kind.
        head: of the classifier, on the device where it scores.
        roster: the scores.
        settings: LINe's.
        search: that found them, if any did: its folds are used.
        primary: whose score decides; None to choose it.

    Raises:
        DatasetError: too few images, or too few outliers of a kind.
    """
    folds = search.folds if search else split(sample.labels, outliers)
    scores = score_candidates(sample, outliers, folds, head, settings, roster)
    counts = {kind: len(own.sources) for kind, own in outliers.items()}
    return Tuning(counts, search, settings, choose(scores, primary))
