"""Thresholds by predicted class: who is compared with whom, against the definition."""

from __future__ import annotations

import timeit

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scoring import conformal
from scoring.errors import TooFewImagesError
from scoring.groups import ClassGroups, least_for
from tests.reference import group_of

CLASSES = 5
Image = tuple[float, int]  # score and predicted class


def groups(calibration: list[Image], least: int | None) -> ClassGroups:
    return ClassGroups(*arrays(calibration), CLASSES, least)


def arrays(images: list[Image]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    return np.array([s for s, _ in images], np.float64), np.array([predicted for _, predicted in images], np.int64)


def images(sizes: list[int]) -> list[Image]:
    """As many of each class as wanted, with different scores that grow with the class."""
    return [(100.0 * predicted + i, predicted) for predicted, size in enumerate(sizes) for i in range(size)]


any_image = st.tuples(st.integers(-3, 3).map(float), st.integers(0, CLASSES - 1) | st.just(0))


@given(calibration=st.lists(any_image, max_size=40), judged=st.lists(any_image, max_size=4), least=st.integers(1, 12))
def test_p_values_are_the_share_of_the_group(calibration: list[Image], judged: list[Image], least: int) -> None:
    """Each image's rank among all images of its group, itself included: that is what makes them exchangeable."""
    found = groups(calibration, least).p_values(*arrays(judged))
    members = [(each, group_of(*each, calibration, least)) for each in judged]
    assert found.tolist() == [sum(s >= image[0] for s in group) / len(group) for image, group in members]


@given(calibration=st.lists(any_image, min_size=12, max_size=60), judged=any_image, alpha=st.sampled_from([0.1, 0.3]))
def test_thresholds_decide_as_p_values_do(calibration: list[Image], judged: Image, alpha: float) -> None:
    """`score > threshold of the predicted class` and `p <= alpha` are the same decision, ties included."""
    found = groups(calibration, least=9)
    reject = judged[0] > found.thresholds(alpha)[judged[1]]
    assert reject == (found.p_values(*arrays([judged]))[0] <= alpha)


def test_a_class_with_enough_images_stands_alone() -> None:
    """Its threshold is that of its own images, under either guarantee; the others share one."""
    calibration = images([100, 10, 60, 15, 0])
    found = groups(calibration, least=20)
    assert found.alone.tolist() == [True, False, True, False, False]
    assert found.sizes.tolist() == [100, 25, 60, 25, 25]
    scores, predicted = arrays(calibration)
    pool = scores[(predicted == 1) | (predicted == 3)]
    wanted = [
        conformal.threshold(part, 0.2, "pac") for part in (scores[:100], pool, scores[predicted == 2], pool, pool)
    ]
    assert found.thresholds(0.2, "pac").tolist() == wanted


def test_a_class_with_just_enough_images_also_counts_in_the_pool() -> None:
    """Class 1 stands alone with its 20 images, and is among those that images of class 2 are compared with."""
    found = groups(images([50, 20, 15, 15, 0]), least=20)
    assert found.alone.tolist() == [True, True, False, False, False]
    assert found.sizes.tolist() == [50, 20, 50, 50, 50]


def test_a_pool_that_is_too_small_takes_in_the_smallest_other_class() -> None:
    """Three images promise nothing: the class of 25 joins them, and nobody else."""
    found = groups(images([50, 25, 3, 40, 0]), least=20)
    assert found.alone.tolist() == [True, False, False, True, False]
    assert found.sizes.tolist() == [50, 28, 28, 40, 28]


def test_a_class_never_predicted_leaves_the_others_alone() -> None:
    """Where all others stand alone, only an image of the class that has none is compared with others' images."""
    found = groups(images([50, 30, 30, 40, 0]), least=20)
    assert found.alone.tolist() == [True, True, True, True, False]
    assert found.sizes.tolist() == [50, 30, 30, 40, 60]


def test_all_share_one_threshold_where_no_class_has_enough() -> None:
    """Then nothing differs from thresholds without classes."""
    calibration = images([8, 7, 6, 5, 4])
    scores, _ = arrays(calibration)
    assert groups(calibration, least=20).thresholds(0.1).tolist() == [conformal.threshold(scores, 0.1)] * CLASSES


def test_too_few_images_in_all_are_refused() -> None:
    """The number that is needed is told."""
    with pytest.raises(TooFewImagesError, match="needs at least 19 held-out images, found 10: give 9 more"):
        groups(images([5, 5, 0, 0, 0]), least=19).thresholds(0.05)


def test_a_group_too_small_for_a_stricter_rate_is_refused() -> None:
    """A rate that `least` was not chosen for is not given to some classes only."""
    found = groups(images([200, 30, 30, 30, 30]), least=19)
    with pytest.raises(
        TooFewImagesError, match=r"alpha = 0\.01 needs at least 99 held-out images, found 30: give 69 more"
    ):
        found.thresholds(0.01)


@given(calibration=st.lists(any_image, min_size=1, max_size=60), least=st.integers(1, 15))
def test_every_group_has_enough_images_where_there_are_enough(calibration: list[Image], least: int) -> None:
    """So that no rate that `least` images can keep is refused."""
    assert groups(calibration, least).sizes.min() >= min(least, len(calibration))


@given(calibration=st.lists(any_image, min_size=9, max_size=40), judged=st.lists(any_image, max_size=4))
def test_one_group_for_all(calibration: list[Image], judged: list[Image]) -> None:
    """Without classes every image is compared with all, as by `conformal`."""
    found, scores = groups(calibration, None), np.sort(arrays(calibration)[0])
    assert not found.alone.any()
    assert found.p_values(*arrays(judged)).tolist() == conformal.p_values(arrays(judged)[0], scores).tolist()
    assert found.thresholds(0.1).tolist() == [conformal.threshold(scores, 0.1)] * CLASSES


@given(calibration=st.lists(any_image, min_size=9, max_size=80), least=st.integers(9, 12))
def test_ranks_are_those_of_each_group(calibration: list[Image], least: int) -> None:
    """The rank of a class's group says how many of its scores, one more than its threshold, are at least as far out."""
    found = groups(calibration, least)
    thresholds, ranks = found.thresholds(0.2), found.ranks(0.2)
    for c in range(CLASSES):
        members = group_of(np.inf, c, calibration, least)[:-1]
        assert len(members) == found.sizes[c]
        assert ranks[found.group_of[c]] == conformal.rank(len(members), 0.2)
        assert thresholds[c] == sorted(members, reverse=True)[ranks[found.group_of[c]] - 1]


def test_the_farthest_image_of_a_class_alone_is_not_its_threshold() -> None:
    """Of 39 images the second largest at 5 %: one image that strayed into the class does not switch its flag off."""
    least = least_for([0.5, 0.05])
    calibration = [*images([200, least - 1]), (1e6, 1)]
    found = groups(calibration, least)
    assert found.alone[1] and found.sizes[1] == least == 39
    assert found.thresholds(0.05)[1] == 100 + least - 2
    assert [least_for([alpha], "pac") for alpha in (0.05, 0.01)] == [93, 473]


@pytest.mark.parametrize("guarantee", ["marginal", "pac"])
@pytest.mark.parametrize("alpha", [0.9, 0.5, 0.29, 0.05, 0.01])
def test_least_is_the_fewest(alpha: float, guarantee: conformal.Guarantee) -> None:
    """With one image less the largest score would be the threshold."""
    least = least_for([alpha], guarantee)
    assert conformal.rank(least, alpha, guarantee) >= 2 > conformal.rank(least - 1, alpha, guarantee)


def test_a_thousand_classes_cost_microseconds_an_image() -> None:
    """No step for each group: 32 images of as many groups in 64 µs, of which a search for each would take 150."""
    random = np.random.default_rng(0)
    predicted = random.integers(0, 1000, 60_000)
    found = ClassGroups(random.random(60_000), predicted, 1000, least=39)
    batch = random.random(32), random.integers(0, 1000, 32)
    assert found.alone.sum() > 900
    assert min(timeit.repeat(lambda: found.p_values(*batch), number=100, repeat=5)) < 100 * 64e-6
