"""The bootstrap against resamples that are really made, DeLong's formula, and the truth that intervals have to hold."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import norm

from calibration import bootstrap as module
from calibration.bootstrap import RESAMPLES, bootstrap, interval
from tests.calibration.test_separation import slow_auroc, slow_fpr95, some_scores


def delong_deviation(inside: np.ndarray, outside: np.ndarray) -> float:
    """The standard deviation of AUROC by DeLong, DeLong and Clarke-Pearson (1988), from all pairs."""
    wins = (outside > inside[:, None]) + 0.5 * (outside == inside[:, None])
    by_id, by_ood = wins.mean(1), wins.mean(0)
    return math.sqrt(by_id.var(ddof=1) / len(inside) + by_ood.var(ddof=1) / len(outside))


@pytest.mark.parametrize("kind", ["continuous", "ties"])
@pytest.mark.parametrize("seed", range(6))
def test_each_resample(seed: int, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """FPR95 and AUROC of a resample are those of the images that it holds, as often as it holds them."""
    inside, outside = some_scores(seed, kind)
    drawn = []

    def draw(*arguments: object) -> np.ndarray:
        drawn.append(real(*arguments))
        return drawn[-1]

    real = module._draw
    monkeypatch.setattr(module, "_draw", draw)
    found = bootstrap({"m": inside}, {"far": {"m": outside}})["m", "far"]
    id_counts, ood_counts = np.concatenate(drawn[::2]), np.concatenate(drawn[1::2])
    assert found.shape == (2, RESAMPLES)
    assert (id_counts.sum(1) == len(inside)).all()
    assert (ood_counts.sum(1) == len(outside)).all()
    for r in (0, 1, 24, 25, 999):
        some_in, some_out = np.repeat(inside, id_counts[r]), np.repeat(outside, ood_counts[r])
        assert found[0, r] == pytest.approx(slow_fpr95(some_in, some_out), abs=1e-12)
        assert found[1, r] == pytest.approx(slow_auroc(some_in, some_out), abs=1e-12)


def test_every_image_is_drawn_alike() -> None:
    """Over all resamples each image is drawn once a resample on average, with the variance of a multinomial law."""
    counts = module._draw(np.random.default_rng(3), 4000, 20)
    assert counts.mean(0) == pytest.approx(1, abs=5 * math.sqrt(0.95 / 4000))
    assert counts.var() == pytest.approx(1 - 1 / 20, rel=0.03)


@pytest.mark.parametrize("seed", range(3))
def test_deviation_is_delongs(seed: int) -> None:
    """AUROC varies over the resamples as DeLong's formula says, within 10 %."""
    generator = np.random.default_rng(seed)
    inside, outside = generator.normal(0, 1, 400), generator.normal(1, 1.5, 250)
    auroc = bootstrap({"m": inside}, {"far": {"m": outside}})["m", "far"][1]
    assert auroc.std() == pytest.approx(delong_deviation(inside, outside), rel=0.1)


def test_coverage(monkeypatch: pytest.MonkeyPatch) -> None:
    """The interval of AUROC holds the true value for 95 % of data sets: normal scores, where the truth is known."""
    monkeypatch.setattr(module, "RESAMPLES", 400)
    count, shift = 400, 1.2
    truth = norm.cdf(shift / math.sqrt(2))
    generator = np.random.default_rng(0)
    held = 0
    for _ in range(count):
        inside, outside = generator.normal(0, 1, 150), generator.normal(shift, 1, 150)
        low, high = interval(bootstrap({"m": inside}, {"far": {"m": outside}})["m", "far"][1])
        held += low <= truth <= high
    # 4 standard deviations of a share of 400, and a point below for what a percentile interval lacks at 150 images.
    assert 0.95 - 0.01 - 4 * math.sqrt(0.95 * 0.05 / count) <= held / count
    assert held / count <= 0.95 + 4 * math.sqrt(0.95 * 0.05 / count)


def test_methods_share_resamples() -> None:
    """A method has the same interval whoever is measured beside it, and a copy of it the same resamples."""
    inside, outside = some_scores(1, "continuous")
    alone = bootstrap({"a": inside}, {"far": {"a": outside}})
    both = bootstrap({"b": -inside, "a": inside, "c": inside}, {"far": {"b": -outside, "a": outside, "c": outside}})
    assert np.array_equal(alone["a", "far"], both["a", "far"])
    assert np.array_equal(both["a", "far"], both["c", "far"])
    assert both["b", "far"][1] == pytest.approx(1 - both["a", "far"][1])


def test_perfect_separation() -> None:
    """Where no OOD image is near an ID image, no resample finds one."""
    low, high = np.linspace(0, 1, 30), np.linspace(2, 3, 50)
    fpr95, auroc = bootstrap({"m": low}, {"far": {"m": high}})["m", "far"]
    assert (interval(fpr95), interval(auroc)) == ((0, 0), (1, 1))
