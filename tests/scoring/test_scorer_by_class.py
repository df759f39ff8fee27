"""Thresholds by predicted class, as they are served: the whole way from pixels to the decision."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from scipy.stats import binom

from scoring.artifact import Artifact
from scoring.classifier import Classifier
from scoring.scorer import ImageScore, Scorer
from tests import reference
from tests.scoring.test_scorer import calibrate, lively_classifier, noise

LEAST = 39
CHANCE = 1e-3  # of a bound that is broken though the promise is kept


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    return lively_classifier()


@pytest.fixture(scope="module")
def artifact(classifier: Classifier) -> Artifact:
    """300 images: 199 predicted as class 2, which stands alone; 83 and 18 as classes 3 and 1, which share the pool."""
    return calibrate(classifier, 300, LEAST)


@pytest.fixture(scope="module")
def scorer(classifier: Classifier, artifact: Artifact) -> Scorer:
    return Scorer(classifier, artifact)


@pytest.fixture(scope="module")
def scores(scorer: Scorer) -> list[ImageScore]:
    return scorer.score(noise(400, 9)) + scorer.score(noise(300, 2))


def images_of(artifact: Artifact) -> list[tuple[float, int]]:
    return list(zip(artifact.calibration_scores.tolist(), artifact.predicted.tolist(), strict=True))


def test_p_values_are_of_the_group(scorer: Scorer, scores: list[ImageScore]) -> None:
    """An image's rank among the images of its own group alone, by the oracle; it differs from that among all."""
    calibration, among_all = images_of(scorer.artifact), scorer.artifact.calibration_scores.tolist()
    for score in scores:
        group = reference.group_of(score.ood_score, score.predicted, calibration, LEAST)
        assert score.p_value == sum(s >= score.ood_score for s in group) / len(group)
    assert np.mean([score.p_value != reference.p_value(score.ood_score, among_all) for score in scores]) > 0.9


def test_the_class_is_the_predicted_one(scorer: Scorer) -> None:
    """Argmax of the classifier's own logits, which an answer names first, not the class that LINe routes to."""
    pixels = noise(300, 6)
    _, logits = scorer.classifier.forward(pixels)
    found = scorer.score(pixels)
    assert [score.predicted for score in found] == logits.argmax(1).tolist()
    assert [scorer.predictions(score, 1)[0].index for score in found] == [score.predicted for score in found]


def test_decisions_agree_with_p_values(scorer: Scorer, scores: list[ImageScore]) -> None:
    """Each operating point: reject iff p <= alpha iff the margin is negative, in every group; some of each."""
    for point in scorer.artifact.operating_points.values():
        seen = set()
        for score in scores:
            decision = scorer.decide(score, point)
            assert decision.reject == (score.p_value <= point.alpha) == (decision.margin < 0)
            assert decision.margin == decision.threshold - score.ood_score
            seen.add((score.predicted == 2, decision.reject))
        assert len(seen) == 4


def test_thresholds_are_of_the_group(scorer: Scorer) -> None:
    """The l-th largest score of the images that the oracle compares with, class by class; two different ones."""
    calibration = images_of(scorer.artifact)
    for point in scorer.artifact.operating_points.values():
        found = scorer.thresholds[point.name]["line"].tolist()
        for c, threshold in enumerate(found):
            own = sorted(reference.group_of(np.inf, c, calibration, LEAST)[:-1], reverse=True)
            assert threshold == own[int(point.alpha * (len(own) + 1)) - 1]
        assert len(set(found)) == 2


def test_on_the_threshold_is_accepted(scorer: Scorer) -> None:
    """The same score is accepted in the class whose threshold it is, and rejected in one whose threshold is lower."""
    point = scorer.artifact.operating_points["default"]
    of_class = scorer.thresholds["default"]["line"]
    high, low = int(of_class.argmax()), int(of_class.argmin())
    score = ImageScore(np.ones(5), float(of_class[high]), 0.5, high)
    assert not scorer.decide(score, point).reject
    assert scorer.decide(
        dataclasses.replace(score, ood_score=float(np.nextafter(of_class[high], np.inf))), point
    ).reject
    assert scorer.decide(dataclasses.replace(score, predicted=low), point).reject


class Drawn:
    """Calibration sets and a judged image drawn from a finite population, which is as good as any distribution.

    Every draw is a `Scorer` of its own, which scores the pixels of the judged image.
    """

    COUNT = 300
    SETS = 1500

    def __init__(self, classifier: Classifier, like: Artifact, alone_from: int | None) -> None:
        self.pixels = noise(4000, 77)
        self.classifier = classifier
        metadata = like.metadata.model_copy(update={"alone_from": alone_from})
        self.like = dataclasses.replace(like, metadata=metadata)
        whole = Scorer(classifier, like).score(self.pixels)
        self.scores = np.array([score.ood_score for score in whole])
        self.predicted = np.array([score.predicted for score in whole])

    def run(
        self, spoil: Callable[[npt.NDArray[np.int64]], npt.NDArray[np.int64]] = lambda predicted: predicted
    ) -> list[tuple[int, bool, bool]]:
        """Predicted class of the judged images, whether it stood alone, whether it was rejected at 10 %."""
        random, found = np.random.default_rng(1), []
        point = self.like.metadata.operating_points[0]
        assert point.alpha == 0.1
        for _ in range(self.SETS):
            *rows, judged = random.choice(len(self.scores), self.COUNT + 1, replace=False).tolist()
            drawn = {"line": self.scores[rows]}
            artifact = dataclasses.replace(self.like, scores=drawn, predicted=spoil(self.predicted[rows]))
            scorer = Scorer(self.classifier, artifact)
            (score,) = scorer.score(self.pixels[judged : judged + 1])
            alone = bool(artifact.groups["line"].alone[score.predicted])
            found.append((score.predicted, alone, scorer.decide(score, point).reject))
        return found


def most(judged: int) -> int:
    """Rejected images of so many that are exceeded with probability CHANCE where a tenth is rejected."""
    return int(binom.ppf(1 - CHANCE, judged, 0.1))


def broken(found: list[tuple[int, bool, bool]]) -> set[str]:
    """The groups whose images are rejected more often than a tenth of them; each class alone, the pool, all."""
    parts = {"all": found, "pool": [each for each in found if not each[1]]}
    parts |= {f"class {c}": [each for each in found if each[1] and each[0] == c] for c in range(5)}
    assert len(parts["pool"]) > 200 and len(parts["class 2"]) > 500
    return {name for name, part in parts.items() if sum(reject for *_, reject in part) > most(len(part))}


@pytest.fixture(scope="module")
def served(classifier: Classifier, artifact: Artifact) -> list[tuple[int, bool, bool]]:
    return Drawn(classifier, artifact, LEAST).run()


def test_each_group_keeps_the_rate(served: list[tuple[int, bool, bool]]) -> None:
    """At most a tenth of the class that stands alone, of the pool and of all is rejected, over 1500 calibrations."""
    assert broken(served) == set()


def test_groups_of_other_classes_break_it(classifier: Classifier, artifact: Artifact) -> None:
    """Scores beside the class of another image, as a sort would leave them, break the promise, and it is seen."""
    assert broken(Drawn(classifier, artifact, LEAST).run(spoil=np.sort))


def test_one_threshold_for_all_breaks_it(
    classifier: Classifier, artifact: Artifact, served: list[tuple[int, bool, bool]]
) -> None:
    """It keeps the rate of all images, and not that of the classes that are farther out: what --per-class is for."""
    together = Drawn(classifier, artifact, None).run()
    found = [(c, alone, reject) for (c, alone, _), (_, _, reject) in zip(served, together, strict=True)]
    assert broken(found) & {"all", "class 2", "pool"} == {"pool"}
