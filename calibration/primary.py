"""Which score an artifact should publish: the one that separates best on average, LINe where that costs little.

All methods are compared on the same cross-validated ID images and outliers, see `calibration.folds`, by the
criterion of the search: AUROC averaged over the kinds of outliers; mean FPR95 decides between equals.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from calibration.folds import MethodScores
from calibration.separation import MEAN, Separation, mean_separation, separate
from scoring.ensemble import LINE

MARGIN = 0.01  # of AUROC: of 1000 images cross-validation can hardly tell less
ROUNDING = 1e-9  # of a difference: one point exactly is within one point


@dataclass(frozen=True)
class Choice:
    """What was compared and what came of it.

    Attributes:
        rows: a row for each method and kind of outliers, and for each method's mean.
        best: the method with the greatest mean AUROC.
        primary: the one that was given; else LINe where it is within MARGIN of the best, and else the best.
        warnings: by how much LINe or the primary loses, and which kinds of outliers would rather have another one.
    """

    rows: tuple[Separation, ...]
    best: str
    primary: str
    warnings: tuple[str, ...]

    @property
    def ranked(self) -> list[str]:
        """The methods, those with the greatest mean AUROC first."""
        means = [row for row in self.rows if row.ood == MEAN]
        return [row.method for row in sorted(means, key=lambda row: -row.auroc)]


def choose(scores: Mapping[str, MethodScores], given: str | None = None) -> Choice:
    """Compare methods.

    Args:
        scores: by method; of equally good ones the first is taken.
        given: the primary, where it is settled.
    """
    kinds = [kind for method in scores.values() for kind in method.outside]
    by_kind = [
        separate(method, kind, inside, outside)
        for method, (inside, outsides) in scores.items()
        for kind, outside in outsides.items()
    ]
    means = {method: mean_separation(by_kind, method) for method in scores}
    best = _best(means.values())
    chosen = LINE if LINE in means and _is_close(means[LINE], best) else best.method
    primary = means[given or chosen]
    watched = dict.fromkeys([LINE, primary.method])
    warnings = [_loses(means[each], best) for each in watched if each in means and not _is_close(means[each], best)]
    for kind in dict.fromkeys(kinds):
        of_kind = {row.method: row for row in by_kind if row.ood == kind}
        winner = _best(of_kind.values())
        if not _is_close(of_kind[primary.method], winner):
            warnings.append(_disagrees(kind, winner, of_kind[primary.method]))
    return Choice((*by_kind, *means.values()), best.method, primary.method, tuple(warnings))


def _best(rows: Iterable[Separation]) -> Separation:
    return max(rows, key=lambda row: (row.auroc, -row.fpr95))


def _is_close(row: Separation, best: Separation) -> bool:
    return row.auroc >= best.auroc - MARGIN - ROUNDING


def _loses(row: Separation, best: Separation) -> str:
    return (
        f"{row.method} is not the best score of this network: {MEAN} AUROC {100 * row.auroc:.1f} % against "
        f"{100 * best.auroc:.1f} % of {best.method}, on cross-validated images and the outliers at hand"
    )


def _disagrees(kind: str, winner: Separation, primary: Separation) -> str:
    return (
        f"against outliers {kind!r} {winner.method} would be better than {primary.method}: AUROC "
        f"{100 * winner.auroc:.1f} % instead of {100 * primary.auroc:.1f} %"
    )
