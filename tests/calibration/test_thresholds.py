"""The thresholds of all classes against `line.weight_threshold`, which numpy's percentile makes: bit for bit."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from calibration import thresholds
from calibration.thresholds import SortedColumns, weight_thresholds
from scoring import line

CLASSES, FEATURES = 96, 60


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def plain(g: torch.Generator) -> tuple[Tensor, Tensor]:
    weight = torch.randn(CLASSES, FEATURES, generator=g) * 0.03
    return torch.rand(CLASSES, FEATURES, generator=g) * weight, weight


def sparse(g: torch.Generator) -> tuple[Tensor, Tensor]:
    """Half of the features of a class, and all of one feature, contribute nothing."""
    contribution, weight = plain(g)
    contribution[torch.rand(CLASSES, FEATURES, generator=g) < 0.5] = 0
    contribution[:, 7] = -0.0
    return contribution, weight


def nothing(g: torch.Generator) -> tuple[Tensor, Tensor]:
    contribution, weight = plain(g)
    return contribution * 0, weight


def ties(g: torch.Generator) -> tuple[Tensor, Tensor]:
    """Few values, so that the percentile is one of many equal products."""
    draw = torch.randint(-3, 4, (2, CLASSES, FEATURES), generator=g).float()
    return draw[0] / 4, draw[1] / 8


def magnitudes(g: torch.Generator) -> tuple[Tensor, Tensor]:
    """Products from far below to far above what a float32 could hold."""
    draw = torch.randn(4, CLASSES, FEATURES, generator=g)
    return draw[0].sign() * (15 * draw[1]).exp(), draw[2].sign() * (15 * draw[3]).exp()


def positive(g: torch.Generator) -> tuple[Tensor, Tensor]:
    contribution, weight = plain(g)
    return contribution.abs(), weight.abs()


def graded(g: torch.Generator) -> tuple[Tensor, Tensor]:
    """One feature outweighs all others together."""
    contribution, weight = plain(g)
    return contribution * torch.logspace(-12, 6, FEATURES), weight


KINDS = [plain, sparse, nothing, ties, magnitudes, positive, graded]
PERCENTILES = [0.01, 1, 10, 33.3, 50, 90, 99, 99.99]


@pytest.mark.parametrize("p_w", PERCENTILES)
@pytest.mark.parametrize("make", KINDS)
@pytest.mark.parametrize("seed", range(3))
def test_thresholds(
    make: Callable[[torch.Generator], tuple[Tensor, Tensor]], p_w: float, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the distribution and the percentile, thresholds are those of the reference, to the last bit."""
    monkeypatch.setattr(thresholds, "SMALL", 0)
    contribution, weight = make(seeded(seed))
    found = weight_thresholds(contribution, weight, p_w)
    wanted = torch.tensor([line.weight_threshold(row, weight, p_w) for row in contribution], dtype=torch.float64)
    assert torch.equal(found, wanted)


@pytest.mark.parametrize("p_w", [10, 90])
def test_a_large_head(p_w: float) -> None:
    """A head of real size is never left to the slow way, and its thresholds are the same."""
    g = seeded(1)
    weight = torch.randn(1000, 512, generator=g) * 0.03
    contribution = torch.rand(20, 512, generator=g) * weight[:20]
    columns = SortedColumns(weight, p_w)
    assert [columns.threshold(row) for row in contribution] == [
        line.weight_threshold(row, weight, p_w) for row in contribution
    ]


def test_a_sample_that_misleads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the percentile is outside the bracket nothing is claimed, and the reference is asked."""
    monkeypatch.setattr(thresholds, "SMALL", 0)
    monkeypatch.setattr(thresholds, "MARGIN", -0.1)
    contribution, weight = plain(seeded(5))
    columns = SortedColumns(weight, 10)
    assert None in [columns.threshold(row) for row in contribution]
    wanted = [line.weight_threshold(row, weight, 10) for row in contribution]
    assert weight_thresholds(contribution, weight, 10).tolist() == wanted


@pytest.mark.parametrize("shape", [(2, 3), (31, 9000), (1000, 300)])
def test_nothing_removed(shape: tuple[int, int]) -> None:
    """p_w = 0 keeps every weight of heads of any size."""
    assert weight_thresholds(torch.ones(shape), torch.ones(shape), 0).tolist() == [-torch.inf] * shape[0]


def test_few_classes_of_many_features() -> None:
    """Too few rows to sample."""
    weight = torch.randn(31, 9000, generator=seeded(0))
    wanted = [line.weight_threshold(row, weight, 30) for row in weight]
    assert weight_thresholds(weight, weight, 30).tolist() == wanted
