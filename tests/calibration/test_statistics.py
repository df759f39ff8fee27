"""Running statistics against numpy on all the features at once."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from torch import Tensor

from calibration.statistics import FeatureStatistics

CLASSES, FEATURES = 4, 7
RELATIVE = 2**-12  # what `quantile` promises


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def some_images(seed: int, count: int = 200) -> tuple[Tensor, Tensor]:
    generator = seeded(seed)
    features = torch.randn(count, FEATURES, generator=generator) * 10 ** torch.randn(FEATURES, generator=generator)
    return features, torch.randint(CLASSES, (count,), generator=generator)


def gather(features: Tensor, labels: Tensor, batch_size: int) -> FeatureStatistics:
    statistics = FeatureStatistics(CLASSES, features.shape[1])
    for some, some_labels in zip(features.split(batch_size), labels.split(batch_size), strict=True):
        statistics.update(some, some_labels)
    return statistics


def quantile_of(values: Tensor, q: float) -> float:
    statistics = FeatureStatistics(1, values.shape[1])
    statistics.update(values, torch.zeros(len(values), dtype=torch.int64))
    return statistics.quantile(q)


def order_statistic(values: Tensor, q: float) -> float:
    """The value at place floor(q (n - 1)) of the sorted values: a quantile that needs no interpolation."""
    return float(np.quantile(values.double().numpy(), q, method="lower"))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("batch_size", [1, 33, 200])
def test_means(seed: int, batch_size: int) -> None:
    """Counts, means and means of absolute values are numpy's in float64, however the images are batched."""
    features, labels = some_images(seed)
    statistics = gather(features, labels, batch_size)
    values, of = features.double().numpy(), labels.numpy()
    assert statistics.counts.tolist() == np.bincount(of, minlength=CLASSES).tolist()
    for c in range(CLASSES):
        np.testing.assert_allclose(statistics.means[c], values[of == c].mean(0), rtol=1e-11, atol=1e-13)
        np.testing.assert_allclose(statistics.abs_means[c], np.abs(values[of == c]).mean(0), rtol=1e-12)


def test_sums_are_not_of_float32() -> None:
    """A small value added to a large sum is not lost: 2^24 + 1 is no float32."""
    statistics = FeatureStatistics(1, 1)
    for value in (2.0**24, 1.0, 1.0, 1.0):
        statistics.update(torch.tensor([[value]]), torch.tensor([0]))
    assert statistics.means.item() == (2**24 + 3) / 4


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions(dtype: torch.dtype) -> None:
    """Features of another precision are counted by their float32 values."""
    features, labels = some_images(3)
    features = features.clamp(-100, 100).to(dtype)
    mean = gather(features, labels, 50).means[0]
    np.testing.assert_allclose(mean, features.float().double()[labels == 0].mean(0), rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("kind", ["of either sign", "never negative", "negative at last"])
@pytest.mark.parametrize("seed", range(3))
def test_written_down(seed: int, kind: str) -> None:
    """Statistics made again from their tensors in the middle end as if nothing had been between, to the last bit."""
    features, labels = some_images(seed)
    if kind != "of either sign":
        features[: 160 if kind == "negative at last" else None].relu_()
    whole, first = gather(features, labels, 16), gather(features[:96], labels[:96], 16)
    rest = FeatureStatistics.from_tensors({name: tensor.clone() for name, tensor in first.tensors().items()})
    for some, some_labels in zip(features[96:].split(16), labels[96:].split(16), strict=True):
        rest.update(some, some_labels)
    assert rest.counts.tolist() == whole.counts.tolist()
    assert torch.equal(rest.means, whole.means)
    assert torch.equal(rest.abs_means, whole.abs_means)
    assert rest.has_negative is whole.has_negative is (kind != "never negative")
    assert [rest.quantile(q) for q in (0, 0.3, 0.95, 1)] == [whole.quantile(q) for q in (0, 0.3, 0.95, 1)]


@pytest.mark.parametrize("seed", range(3))
def test_order(seed: int) -> None:
    """The order of the images does not matter."""
    features, labels = some_images(seed)
    order = torch.randperm(len(features), generator=seeded(seed))
    one, other = gather(features, labels, 16), gather(features[order], labels[order], 64)
    assert one.counts.tolist() == other.counts.tolist()
    assert one.quantile(0.7) == other.quantile(0.7)
    np.testing.assert_allclose(one.means, other.means, rtol=1e-11, atol=1e-12)


def test_memory() -> None:
    """The object stays as large as it was, whatever the number of images."""
    statistics = gather(*some_images(0), batch_size=50)
    size = len(pickle.dumps(statistics))
    for seed in range(20):
        statistics.update(*some_images(seed, 1000))
    assert len(pickle.dumps(statistics)) == size


def test_class_without_images() -> None:
    """A class that was not met has count 0 and means of NaN, for `fill_empty_classes` to fill; others are untouched."""
    statistics = FeatureStatistics(3, 2)
    statistics.update(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([2, 2]))
    assert statistics.counts.tolist() == [0, 0, 2]
    assert statistics.means[:2].isnan().all()
    assert statistics.means[2].tolist() == [2, 3]


@pytest.mark.parametrize("has", [False, True])
def test_negative_features(has: bool) -> None:
    """`has_negative` is about values below zero: neither zero nor minus zero is one."""
    statistics = FeatureStatistics(1, 3)
    statistics.update(torch.tensor([[0.0, -0.0, -1e-30 if has else 1.0]]), torch.tensor([0]))
    statistics.update(torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([0]))
    assert statistics.has_negative is has


DISTRIBUTIONS = {
    "normal": lambda g: torch.randn(500, 8, generator=g),
    "negative": lambda g: -torch.rand(500, 8, generator=g) - 0.1,
    "relu": lambda g: (torch.randn(500, 8, generator=g) - 0.5).relu(),
    "tiny": lambda g: torch.rand(500, 8, generator=g) * 1e-30 + 1e-37,
    "huge": lambda g: (torch.rand(500, 8, generator=g) * 2 - 1) * 3e38,
    "many magnitudes": lambda g: torch.exp(30 * torch.randn(500, 8, generator=g)).clamp(1e-37, 3e38),
    "a constant": lambda g: torch.full((500, 8), 0.8),
}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_quantile(name: str, seed: int) -> None:
    """A quantile is the value at its place among the sorted values, within 2^-12 of itself."""
    values = DISTRIBUTIONS[name](seeded(seed))
    for q in (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.9999):
        wanted = order_statistic(values, q)
        assert quantile_of(values, q) == pytest.approx(wanted, rel=RELATIVE, abs=1e-40), q


@pytest.mark.parametrize("seed", range(3))
def test_quantile_of_numpy(seed: int) -> None:
    """With enough values it is also numpy's interpolated quantile, within the gap between two neighbours."""
    values = torch.rand(20_000, 5, generator=seeded(seed)) + 0.5
    for q in (0.05, 0.5, 0.95):
        assert quantile_of(values, q) == pytest.approx(np.quantile(values.numpy(), q), rel=RELATIVE + 1e-3)


def test_quantile_of_zeros() -> None:
    """Where most features are zero, as after a ReLU, their quantile is zero and not a number beside it."""
    values = torch.cat([torch.zeros(90, 1), torch.rand(10, 1, generator=seeded(0)) + 1])
    assert quantile_of(values, 0.5) == 0
    assert 1 <= quantile_of(values, 0.95) <= 2


def test_quantiles_ascend() -> None:
    """The end points are the least and the largest value, and a larger q never gives a smaller quantile."""
    values = torch.randn(300, 3, generator=seeded(1))
    quantiles = [quantile_of(values, q) for q in np.linspace(0, 1, 101)]
    assert quantiles == sorted(quantiles)
    assert quantiles[0] == pytest.approx(values.min().item(), rel=RELATIVE)
    assert quantiles[-1] == pytest.approx(values.max().item(), rel=RELATIVE)
