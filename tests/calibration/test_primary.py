"""Which score is recommended, and what is said about it."""

from __future__ import annotations

import numpy as np
import pytest

from calibration.folds import MethodScores
from calibration.primary import choose
from scoring.conformal import FloatArray
from tests.calibration.test_separation import slow_auroc, slow_fpr95

INSIDE = np.arange(100, dtype=np.float64)
LOSERS = {"line": "60.0", "msp": "50.0"}


def with_auroc(areas: dict[str, float]) -> MethodScores:
    """Scores that have these AUROC, of 1000 outliers a kind: each above all ID images, or below."""
    return MethodScores(INSIDE, {kind: outside_of(area) for kind, area in areas.items()})


def outside_of(area: float) -> FloatArray:
    above = round(1000 * area)
    return np.concatenate([np.full(above, 200.0), np.full(1000 - above, -1.0)])


def test_the_table() -> None:
    """A row for each method and kind, then the means; all by their definitions."""
    rng = np.random.default_rng(0)
    scores = {
        method: MethodScores(rng.normal(0, 1, 60), {kind: rng.normal(1, 1, 40) for kind in ("noise", "blur")})
        for method in ("line", "msp")
    }
    rows = choose(scores).rows
    wanted = [(method, kind) for method in scores for kind in ("noise", "blur")]
    assert [(row.method, row.ood) for row in rows] == [*wanted, ("line", "mean"), ("msp", "mean")]
    for row in rows[:4]:
        inside, outside = scores[row.method].inside.tolist(), scores[row.method].outside[row.ood].tolist()
        assert row.fpr95 == pytest.approx(slow_fpr95(inside, outside))
        assert row.auroc == pytest.approx(slow_auroc(inside, outside))
    for mean, own in zip(rows[4:], (rows[:2], rows[2:4]), strict=True):
        assert mean.fpr95 == pytest.approx((own[0].fpr95 + own[1].fpr95) / 2)


@pytest.mark.parametrize("gap", [-0.2, 0, 0.008, 0.01])
def test_line_within_a_point_of_the_best(gap: float) -> None:
    """LINe stays, to the point exactly, and nothing is warned of."""
    choice = choose({"msp": with_auroc({"a": 0.7, "b": 0.7}), "line": with_auroc({"a": 0.7 - gap, "b": 0.7 - gap})})
    assert (choice.primary, choice.warnings) == ("line", ())
    assert choice.best == ("line" if gap < 0 else "msp")


def test_line_that_loses() -> None:
    """Beyond a point the best takes its place; the warning has both figures."""
    choice = choose({"line": with_auroc({"a": 0.5, "b": 0.678}), "msp": with_auroc({"a": 0.6, "b": 0.6})})
    assert (choice.best, choice.primary) == ("msp", "msp")
    assert "mean AUROC 58.9 % against 60.0 % of msp" in choice.warnings[0]


def test_kinds_that_disagree() -> None:
    """A kind against which another method is better by more than a point is named, with both figures."""
    line = with_auroc({"near": 0.4, "far": 0.9, "noise": 0.8})
    energy = with_auroc({"near": 0.5, "far": 0.6, "noise": 0.81})
    choice = choose({"line": line, "energy": energy})
    assert choice.primary == "line"
    (warning,) = choice.warnings
    assert "outliers 'near' energy would be better than line: AUROC 50.0 % instead of 40.0 %" in warning


def test_a_primary_that_is_settled() -> None:
    """It stays whatever is better; by how much it loses is said, and so it is of LINe, of nobody else."""
    scores = {"line": with_auroc({"a": 0.6}), "msp": with_auroc({"a": 0.5}), "energy": with_auroc({"a": 0.7})}
    choice = choose(scores, "msp")
    assert (choice.primary, choice.best) == ("msp", "energy")
    said = [f"{name} is not the best score of this network: mean AUROC {area} %" for name, area in LOSERS.items()]
    assert [warning[: len(text)] for warning, text in zip(choice.warnings, said, strict=False)] == said
    assert len(choice.warnings) == 3  # and the kind that would rather have energy
    assert choose(scores, "energy").warnings == choice.warnings[:1]


def test_equal_auroc() -> None:
    """FPR95 decides between equals, and between equals of both the first."""
    inside = np.concatenate([np.zeros(90), np.ones(10)])
    wide, narrow = np.full(100, 0.5), np.repeat([-1.0, 2.0], [10, 90])
    scores = {"msp": MethodScores(inside, {"a": narrow}), "energy": MethodScores(inside, {"a": wide})}
    measured = {name: (slow_auroc(*pair), slow_fpr95(*pair)) for name, pair in as_lists(scores).items()}
    assert measured == {"msp": (0.9, 0.1), "energy": (0.9, 1.0)}
    assert choose(scores).best == choose(dict(reversed(scores.items()))).best == "msp"
    assert choose({"msp": scores["msp"], "energy": scores["msp"]}).best == "msp"


def as_lists(scores: dict[str, MethodScores]) -> dict[str, tuple[list[float], list[float]]]:
    return {name: (each.inside.tolist(), each.outside["a"].tolist()) for name, each in scores.items()}


def test_without_line() -> None:
    """Where LINe was not measured the best is recommended, and nothing is said of LINe."""
    choice = choose({"msp": with_auroc({"a": 0.7}), "energy": with_auroc({"a": 0.8})})
    assert (choice.best, choice.primary, choice.warnings) == ("energy", "energy", ())
