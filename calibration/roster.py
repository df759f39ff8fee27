"""Which scores a calibration will have: those asked for, or all that fit the network, and their merge."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from scoring.detector import LineDetector
from scoring.ensemble import COMBINED, LINE
from scoring.errors import DatasetError
from scoring.methods import METHODS, Sample, objections
from scoring.types import Head


@dataclass(frozen=True)
class Roster:
    """Names of scores.

    Attributes:
        methods: fitted beside LINe.
        combined: merged to one more; none where not all of them are fitted.
        against: why a method is not for this network, by name.
    """

    methods: tuple[str, ...]
    combined: tuple[str, ...]
    against: dict[str, str]

    @property
    def names(self) -> tuple[str, ...]:
        """All of them."""
        return (LINE, *self.methods, *([COMBINED] if self.combined else []))

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is to be said against methods that were asked for by name."""
        return tuple(
            f"{name} is not for this network: {self.against[name]}" for name in self.methods if name in self.against
        )

    def check(self, primary: str, combined: Sequence[str]) -> None:
        """Refuse a primary that is not here.

        Args:
            primary: whose score is to decide.
            combined: what was to be merged.

        Raises:
            DatasetError: it does not fit the network, or merges what does not.
        """
        if primary not in self.names:
            reason = self.against.get(primary, f"it merges {', '.join(combined)}, which are not all fitted")
            raise DatasetError(f"--primary {primary} cannot be had here: {reason}")


def draw_up(
    sample: Sample, head: Head, detector: LineDetector, methods: Sequence[str] | None, combined: Sequence[str]
) -> Roster:
    """Decide.

    Args:
        sample: of ID images.
        head: of the classifier.
        detector: LINe.
        methods: names; None for all that fit the network.
        combined: to be merged, where all of them are fitted.
    """
    against = objections(sample, Head(*(each.cpu() for each in head)), detector)
    names = tuple(name for name in METHODS if name not in against) if methods is None else tuple(methods)
    return Roster(names, tuple(combined) if set(combined) <= {LINE, *names} else (), against)
