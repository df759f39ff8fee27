"""The CPU's kernels against the reference in torch and against float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.special import logsumexp

from scoring import line
from scoring.detector import LineDetector, LineMasks
from scoring.kernels import cpu
from scoring.types import Head

SHAPES = [(1, 1, 1), (1, 2, 5), (3, 3, 7), (2, 4, 16), (5, 5, 33), (17, 10, 342), (8, 103, 257)]


def make(shape: tuple[int, int, int], seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features, weight and bias."""
    images, classes, features = shape
    random = np.random.default_rng(seed)
    h = np.maximum(random.standard_normal((images, features), dtype=np.float32), 0)
    return (
        h,
        random.standard_normal((classes, features), dtype=np.float32),
        random.standard_normal(classes, dtype=np.float32),
    )


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("delta", [0.8, math.inf])
def test_head_logits_are_those_of_float64(shape: tuple[int, int, int], delta: float) -> None:
    """For any number of classes and features, to float32 rounding; the routed class is that of the clipped ones."""
    h, weight, bias = make(shape)
    logits, routed = np.full(shape[:2], np.nan, np.float32), np.full(shape[0], -1)
    cpu.head_logits(h, delta, weight, bias, logits, routed)
    exact = h.astype(np.float64) @ weight.T.astype(np.float64) + bias
    clipped = np.minimum(h, np.float32(delta)).astype(np.float64) @ weight.T.astype(np.float64) + bias
    np.testing.assert_allclose(logits, exact, atol=2e-5)
    assert (clipped[range(len(h)), routed] >= clipped.max(1) - 2e-5).all()


@pytest.mark.parametrize("classes", [1, 3, 4, 6, 9])
def test_the_first_of_equal_classes_is_routed_to(classes: int) -> None:
    """As argmax does, whatever rows are taken together."""
    routed = np.full(2, -1)
    zeros = np.zeros((2, 3), np.float32)
    bias = np.zeros(classes, np.float32)
    cpu.head_logits(zeros, 1.0, np.ones((classes, 3), np.float32), bias, np.empty((2, classes), np.float32), routed)
    assert routed.tolist() == [0, 0]
    bias[classes // 2 :] = 1
    cpu.head_logits(zeros, 1.0, np.ones((classes, 3), np.float32), bias, np.empty((2, classes), np.float32), routed)
    assert routed.tolist() == [classes // 2, classes // 2]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("pruned", [0.0, 0.1, 0.9, 1.0])
def test_masked_energy_keeps_what_the_floors_keep(shape: tuple[int, int, int], pruned: float) -> None:
    """Whatever share is pruned, a weight on its floor is kept and the one just below it is not."""
    h, weight, bias = make(shape, 1)
    random = np.random.default_rng(2)
    routed = random.integers(0, shape[1], shape[0])
    floors = np.where(random.random(weight.shape) < pruned, np.inf, -np.inf).astype(np.float32)
    on_the_floor = random.random(weight.shape) < 0.3
    floors[on_the_floor] = weight[on_the_floor]
    floors[0, 0] = np.nextafter(weight[0, 0], np.float32(np.inf))
    energy = np.full(shape[0], np.nan, np.float32)
    cpu.masked_energy(h, 0.8, routed, weight, bias, floors, energy)
    hc = np.minimum(h, np.float32(0.8)).astype(np.float64)
    for i, r in enumerate(routed):
        kept = np.where(weight >= floors[r], weight, 0).astype(np.float64)
        assert energy[i] == pytest.approx(-logsumexp(kept @ hc[i] + bias), abs=2e-5)


def test_masked_energy_of_large_logits_is_finite() -> None:
    """Logits whose exponentials overflow, or vanish, have an energy all the same."""
    energy = np.empty(2, np.float32)
    features = np.array([[1.0], [-1.0]], np.float32)
    weight, bias = np.full((5, 1), 1000, np.float32), np.zeros(5, np.float32)
    floors = np.full((5, 1), -np.inf, np.float32)
    cpu.masked_energy(features, math.inf, np.zeros(2, np.int64), weight, bias, floors, energy)
    np.testing.assert_allclose(energy, [-1000 - math.log(5), 1000 - math.log(5)], rtol=1e-6)


def test_nan_stays_with_its_image() -> None:
    """A broken image has neither logits nor energy, and its neighbours have theirs."""
    h, weight, bias = make((3, 9, 20))
    broken = h.copy()
    broken[1, 4] = np.nan
    floors = np.full_like(weight, -np.inf)
    found = []
    for features in (h, broken):
        logits, routed, energy = np.empty((3, 9), np.float32), np.empty(3, np.int64), np.empty(3, np.float32)
        cpu.head_logits(features, 0.5, weight, bias, logits, routed)
        cpu.masked_energy(features, 0.5, routed, weight, bias, floors, energy)
        found.append((logits, energy))
    for sound, other in zip(found[0], found[1], strict=True):
        assert np.isnan(other[1]).all()
        assert np.array_equal(other[[0, 2]], sound[[0, 2]])


@pytest.mark.parametrize(("p_a", "p_w", "clip"), [(10, 10, 0.8), (90, 90, 1.0), (0, 0, None), (0, 50, 0.3)])
def test_the_detector_scores_like_the_reference(p_a: float, p_w: float, clip: float | None) -> None:
    """Through the kernels, with masks that calibration made, in whatever memory layout and type features come."""
    h, weight, bias = make((40, 30, 64), 3)
    head = Head(torch.from_numpy(weight), torch.from_numpy(bias))
    contribution = line.signed_contribution(torch.from_numpy(np.abs(make((30, 30, 64), 4)[0])).double(), head.weight)
    thresholds = torch.tensor([line.weight_threshold(row, head.weight, p_w) for row in contribution]).double()
    masks = LineMasks(contribution, line.activation_mask(contribution, p_a), thresholds, float(p_a))
    floors = line.weight_floors(contribution, thresholds, masks.activation_mask)
    features = torch.from_numpy(h)
    detector = LineDetector(head, masks, clip)
    for given in (features, features.T.contiguous().T, features.double(), features[::2], features[:0]):
        logits, ood_scores = detector.score(given)
        assert logits.dtype == ood_scores.dtype == torch.float32
        torch.testing.assert_close(logits, torch.addmm(head.bias, given.float(), head.weight.T), rtol=0, atol=2e-5)
        torch.testing.assert_close(ood_scores, line.line(given, head, clip, floors), rtol=0, atol=2e-5)
