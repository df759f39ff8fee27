"""Thresholds by predicted class over HTTP: each image is answered with that of its class, and counted by it."""

from __future__ import annotations

from pathlib import Path

import httpx
import numpy as np
import pytest
import torch

from scoring.scorer import Scorer
from service.model_metrics import score_buckets
from tests.metrics import sample
from tests.reference import group_of
from tests.service.test_routes import post

ALPHAS = {"default": 0.2, "strict": 0.1}


@pytest.fixture
def scorer(by_class: Path) -> Scorer:
    return Scorer.load(by_class, torch.device("cpu"))


@pytest.mark.parametrize("point", [None, "strict"])
def test_each_answer_has_the_threshold_of_its_class(
    client: httpx.Client, scorer: Scorer, images: list[bytes], point: str | None
) -> None:
    """Threshold, margin, p-value and decision of every method are of the group that the oracle compares with."""
    artifact, alpha = scorer.artifact, ALPHAS[point or "default"]
    seen: dict[int, float] = {}
    params = {"methods": "all"} | ({"operating_point": point} if point else {})
    for data in images:
        (result,) = post(client, data, params=params).json()["results"]
        predicted, ood = result["predictions"][0]["index"], result["ood"]
        assert ood["margin"] == pytest.approx(ood["threshold"] - ood["score"], abs=1e-12)
        assert {key: ood[key] for key in ("score", "threshold", "p_value", "reject")} == result["methods"]["line"]
        for name, found in result["methods"].items():
            calibration = list(zip(artifact.scores[name].tolist(), artifact.predicted.tolist(), strict=True))
            group = sorted(group_of(found["score"], predicted, calibration, 19), reverse=True)
            own = sorted(group_of(np.inf, predicted, calibration, 19)[:-1], reverse=True)
            assert found["threshold"] == own[int(alpha * (len(own) + 1)) - 1]
            assert found["p_value"] == sum(s >= found["score"] for s in group) / len(group)
            assert found["reject"] is (found["score"] > found["threshold"]) is (found["p_value"] <= alpha)
        seen[predicted] = ood["threshold"]
    assert set(scorer.artifact.groups["line"].alone[[*seen]].tolist()) == {False, True}
    assert len(set(seen.values())) == 3  # two classes that stand alone, and the pool


def test_images_are_counted_by_their_own_threshold(client: httpx.Client, scorer: Scorer, images: list[bytes]) -> None:
    """The counters of every operating point are the decisions of the answers, whichever point was asked for."""
    for data in images:
        assert post(client, data).status_code == 200
    scores = [score for data in images for score in scorer.score(scorer.classifier.preprocess.read(data)[None])]
    url = str(client.base_url).rstrip("/")
    for name, point in scorer.artifact.operating_points.items():
        rejected = sum(scorer.decide(score, point).reject for score in scores)
        for decision, count in (("reject", rejected), ("accept", len(images) - rejected)):
            counted = sample(url, "line_ood_images_total", decision=decision, model="fine", operating_point=name)
            assert counted == count
    default = scorer.artifact.operating_points["default"]
    together = min(scorer.decide(score, default).threshold for score in scores)
    assert sum(score.ood_score > together for score in scores) != sum(scorer.decide(s, default).reject for s in scores)


def test_buckets_of_scores_are_few(scorer: Scorer) -> None:
    """The lowest and the highest threshold of each operating point are buckets' bounds, not one for each class."""
    buckets = score_buckets(scorer.artifact)
    for point in scorer.artifact.metadata.operating_points:
        thresholds = scorer.thresholds[point.name]["line"]
        assert {float(thresholds.min()), float(thresholds.max())} <= set(buckets)
    assert max(buckets) > scorer.artifact.calibration_scores.max()
    assert len(buckets) <= 12 + 5 + 2 * 2
    assert buckets == sorted(set(buckets))
