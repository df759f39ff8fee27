"""Settings and primary, settled together: every score cross-validated by the code that serves, against slow loops."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from calibration.candidates import score_candidates
from calibration.folds import split
from calibration.learnt import learn
from calibration.roster import Roster, draw_up
from calibration.search import tune
from calibration.settings import LineSettings
from calibration.statistics import FeatureStatistics
from calibration.tuning import compare
from scoring.detector import LineDetector
from scoring.errors import DatasetError
from scoring.methods import METHODS, Sample, fit_all
from tests.calibration.test_search import Problem, fold_of, parts_of, problem, slow_row
from tests.calibration.test_separation import slow_auroc

SETTINGS = LineSettings(p_a=30, p_w=50, clip=None, clip_quantile=0.9)


def sample_of(p: Problem) -> Sample:
    return Sample(p.sample, p.labels)


def line_of(p: Problem) -> LineDetector:
    statistics = FeatureStatistics(*p.head.weight.shape)
    statistics.update(p.sample, p.labels)
    return learn(statistics, p.head, SETTINGS).detector


def roster_of(p: Problem, methods: tuple[str, ...] | None, combined: tuple[str, ...]) -> Roster:
    return draw_up(sample_of(p), p.head, line_of(p), methods, combined)


@pytest.mark.parametrize("negative", [False, True], ids=["signed", "absolute"])
def test_line_is_scored_as_the_other_folds_have_calibrated_it(negative: bool) -> None:
    """Image by image the scores of LINe in plain loops."""
    p = problem(2, negative=negative)
    sample = sample_of(p)
    roster = roster_of(p, (), ())
    found = score_candidates(sample, p.outliers, split(p.labels, p.outliers), p.head, SETTINGS, roster)
    wanted = slow_row(p, 30, 50, 0.9, absolute=negative)
    assert list(found) == ["line"]
    assert found["line"].inside.tolist() == pytest.approx(wanted.pop("ID"), rel=1e-3)  # a quantile is known to 2^-12
    assert {kind: scores.tolist() for kind, scores in found["line"].outside.items()} == {
        kind: pytest.approx(scores, rel=1e-3) for kind, scores in wanted.items()
    }


@pytest.mark.parametrize("name", sorted(set(METHODS) - {"cadref", "line-paper"}))
def test_each_method_is_fitted_to_the_other_folds(name: str) -> None:
    """Fitted by hand without a fold, a method gives that fold's images and outliers the scores that are compared."""
    p = problem(3)
    sample = sample_of(p)
    found = score_candidates(
        sample, p.outliers, split(p.labels, p.outliers), p.head, SETTINGS, roster_of(p, (name,), ())
    )[name]
    parts = parts_of(p.labels)
    wanted: dict[str, list[float]] = {"ID": [], **{kind: [] for kind in p.outliers}}
    for fold in range(5):
        taught = Sample(p.sample[parts != fold], p.labels[parts != fold])
        method = fit_all([name], taught, p.head, line_of(p))[name]
        groups = {"ID": p.sample[parts == fold]} | {
            kind: p.outliers[kind].features[torch.tensor(fold_of(p, kind)) == fold] for kind in p.outliers
        }
        for kind, features in groups.items():
            logits = features.double() @ p.head.weight.double().T + p.head.bias
            unused = torch.zeros(len(features), dtype=torch.int64)
            wanted[kind] += method.score(features, logits, unused).double().tolist()
    assert found.inside.tolist() == pytest.approx(wanted["ID"], rel=1e-3, abs=1e-4)
    for kind, scores in found.outside.items():
        assert scores.tolist() == pytest.approx(wanted[kind], rel=1e-3, abs=1e-4)


def test_a_search_and_a_choice() -> None:
    """LINe is compared with the settings that were found, and what is best is the best of all by AUROC."""
    p = problem(4)
    sample = sample_of(p)
    roster = roster_of(p, ("msp", "energy"), ("line", "energy"))
    search = p.search()
    tuning = compare(sample, p.outliers, p.head, roster, settings=search.best.settings, search=search, primary=None)
    assert tuning.outliers == {"made": 21, "folder": 23}
    means = {row.method: row.auroc for row in tuning.choice.rows if row.ood == "mean"}
    assert list(means) == ["line", "msp", "energy", "combined"]
    assert means["line"] == pytest.approx(search.best.mean_auroc, abs=5e-3)
    assert tuning.choice.best == max(means, key=lambda name: means[name])
    assert set(search.notes) <= set(tuning.warnings)


def test_settings_that_are_given_are_not_searched() -> None:
    """LINe is compared with them; a primary that is given stays."""
    p = problem(4)
    sample = sample_of(p)
    roster = roster_of(p, ("msp",), ())
    tuning = compare(sample, p.outliers, p.head, roster, settings=SETTINGS, search=None, primary="msp")
    assert (tuning.search, tuning.settings, tuning.choice.primary) == (None, SETTINGS, "msp")
    wanted = slow_row(p, 30, 50, 0.9, absolute=False)
    areas = [slow_auroc(wanted["ID"], wanted[kind]) for kind in p.outliers]
    (line,) = [row for row in tuning.choice.rows if (row.method, row.ood) == ("line", "mean")]
    assert line.auroc == pytest.approx(sum(areas) / len(areas), abs=5e-3)


def test_tuned_line_is_never_worse_than_react_and_energy() -> None:
    """On the criterion, by the code that serves: the settings that are found against those of ReAct and of Energy."""
    p = problem(5)
    sample = sample_of(p)
    roster = roster_of(p, (), ())

    def mean_auroc(settings: LineSettings) -> float:
        tuning = compare(sample, p.outliers, p.head, roster, settings=settings, search=None, primary="line")
        return next(row.auroc for row in tuning.choice.rows if row.ood == "mean")

    tuned = mean_auroc(p.search().best.settings)
    nothing_removed = LineSettings(p_a=0, p_w=0, clip=None, clip_quantile=None)
    assert tuned >= mean_auroc(nothing_removed) - 1e-9
    for quantile in (0.8, 0.9, 0.95, 0.99):
        assert tuned >= mean_auroc(dataclasses.replace(nothing_removed, clip_quantile=quantile)) - 1e-9


def test_too_few_images_to_compare_on() -> None:
    """With 19 ID images nothing is compared, whether searched or not."""
    p = problem(6)
    sample = Sample(p.sample[:19], p.labels[:19])
    roster = roster_of(p, (), ())
    folder = {"folder": p.outliers["folder"]}
    with pytest.raises(DatasetError, match="at least 20 in-distribution images, found 19"):
        compare(sample, folder, p.head, roster, settings=SETTINGS, search=None, primary=None)
    with pytest.raises(DatasetError, match="at least 20 in-distribution images, found 19"):
        tune(sample.features, sample.labels, folder, p.head)


def test_a_primary_that_is_not_on_the_roster() -> None:
    """It is refused with the reason: unfit for the network, or a merge of what is not fitted."""
    p = problem(7, negative=True)
    roster = roster_of(p, None, ("line", "react"))
    assert "react" not in roster.names
    assert roster.combined == ()
    with pytest.raises(DatasetError, match="--primary react cannot be had here: features can be negative"):
        roster.check("react", ("line", "react"))
    with pytest.raises(DatasetError, match="--primary combined cannot be had here: it merges line, react"):
        roster.check("combined", ("line", "react"))
