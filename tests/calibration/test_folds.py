"""Cross-validation: who is scored by whom."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch

from calibration.folds import FOLDS, NEEDED, Outliers, cross_validate, parts_of, split
from scoring.conformal import FloatArray
from scoring.errors import DatasetError
from scoring.types import Classes, Features


def labels_of(count: int, classes: int, seed: int) -> Classes:
    return torch.randint(0, classes, (count,), generator=torch.Generator().manual_seed(seed))


def made_of(sources: list[int]) -> Outliers:
    """Outliers whose only feature is the index of their source."""
    return Outliers(torch.tensor(sources, dtype=torch.float32)[:, None], torch.tensor(sources))


@pytest.mark.parametrize(("count", "classes"), [(20, 1), (103, 7), (100, 100), (500, 10)])
def test_parts_are_alike(count: int, classes: int) -> None:
    """Parts differ by one image at most, and in a class by two: one where it begins, one where it ends."""
    labels = labels_of(count, classes, count)
    parts = parts_of(labels)
    sizes = Counter(parts.tolist())
    assert set(sizes) == set(range(FOLDS))
    assert max(sizes.values()) - min(sizes.values()) <= 1
    for own in range(classes):
        of_class = [parts[labels == own].tolist().count(part) for part in range(FOLDS)]
        assert max(of_class) - min(of_class) <= 2
    assert torch.equal(parts, parts_of(labels))


@pytest.mark.parametrize("step", [2, 5, 10, 25])
def test_every_so_many_images_are_in_all_parts(step: int) -> None:
    """Outliers made of each n-th image of a sorted sample do not all fall into one part, whatever n."""
    shares = [count * step / 5000 for count in Counter(parts_of(torch.arange(5000) // 500)[::step].tolist()).values()]
    assert len(shares) == FOLDS
    assert min(shares) > 0.1


@pytest.mark.parametrize("seed", range(5))
def test_nothing_is_scored_by_what_it_taught(seed: int) -> None:
    """In no fold is an image taught and held, nor an outlier held whose source has taught; and all are held once."""
    labels = labels_of(97, 6, seed)
    rng = np.random.default_rng(seed)
    outliers = {"made": made_of(rng.integers(0, 97, 80).tolist()), "mixed": made_of(rng.integers(-1, 97, 60).tolist())}
    folds = split(labels, outliers)
    for fold in folds:
        taught = set(fold.taught.tolist())
        assert taught | set(fold.held.tolist()) == set(range(97))
        assert not taught & set(fold.held.tolist())
        for kind, own in fold.outliers.items():
            assert not taught & set(outliers[kind].sources[own].tolist())
    assert sorted(i for fold in folds for i in fold.held.tolist()) == list(range(97))
    for kind, (_, sources) in outliers.items():
        assert sorted(i for fold in folds for i in fold.outliers[kind].tolist()) == list(range(len(sources)))


def test_outliers_of_no_image_go_round() -> None:
    """Those of a validation folder are spread evenly over the folds."""
    folds = split(labels_of(40, 3, 0), {"folder": made_of([-1] * 52)})
    assert sorted(len(fold.outliers["folder"]) for fold in folds) == [10, 10, 10, 11, 11]


def test_thinned() -> None:
    """Of many only `most` are scored, a fifth in each fold, from the first to the last; all of the others teach."""
    folds = split(labels_of(400, 4, 1), {"made": made_of(list(range(400))), "few": made_of([-1] * 30)}, 100)
    for fold in folds:
        assert (len(fold.taught), len(fold.held), len(fold.outliers["made"])) == (320, 20, 20)
        assert len(fold.outliers["few"]) == 6
        assert fold.held.min() < 40
        assert fold.held.max() > 360
        assert not set(fold.taught.tolist()) & set(fold.held.tolist())


def test_cross_validate_never_shows_a_method_its_own_image() -> None:
    """A method that remembers all it was taught has never met what it scores, nor what that was made of."""
    labels = labels_of(60, 3, 2)
    sample = torch.arange(60, dtype=torch.float32)[:, None]
    outliers = {"made": made_of(list(range(0, 60, 2)))}

    def fit(features: Features, own: Classes) -> object:
        met = set(features[:, 0].tolist())
        assert [labels[int(i)] for i in features[:, 0]] == own.tolist()

        def score(scored: Features) -> dict[str, FloatArray]:
            assert not met & set(scored[:, 0].tolist())
            return {"one": scored[:, 0].double().numpy() + 0.5, "other": -scored[:, 0].double().numpy()}

        return score

    folds = split(labels, outliers)
    found = cross_validate(fit, sample, labels, outliers, folds)  # type: ignore[arg-type]
    assert list(found) == ["one", "other"]
    inside, outside = found["one"]
    assert sorted(inside) == [i + 0.5 for i in range(60)]
    assert sorted(outside["made"]) == [i + 0.5 for i in range(0, 60, 2)]
    assert (found["other"].inside == 0.5 - inside).all()


def test_too_few() -> None:
    """With fewer than 20 ID images nobody can be the one in twenty; both counts are told. So with outliers."""
    with pytest.raises(DatasetError, match=f"at least {NEEDED} in-distribution images, found 19"):
        split(labels_of(19, 2, 0), {"made": made_of(list(range(19)))})
    with pytest.raises(DatasetError, match="outliers 'made': wanted at least 5, found 4"):
        split(labels_of(20, 2, 0), {"made": made_of([0, 1, 2, 3])})
