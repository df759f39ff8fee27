"""What is chosen, how often, and how many at a time."""

from __future__ import annotations

import random
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scoring.scorer import ImageScore
from service.capture.backlog import OVERHEAD_BYTES, Backlog
from service.capture.bucket import TokenBucket
from service.capture.selection import Selection
from tests.service.capture.making import POINT, candidate

SHARES = {"reject": 0.5, "borderline": 0.25, "random": 0.1}


def score(ood_score: float, p_value: float) -> ImageScore:
    return ImageScore(np.array([1.0]), ood_score, p_value, predicted=0)


@pytest.mark.parametrize(
    ("ood_score", "p_value", "shares"),
    [
        (1.5, 0.05, {"reject": 0.5}),
        (0.9, 0.2, {"random": 0.1, "borderline": 0.9 * 0.25}),  # alpha is 0.1
        (1.0, 0.1, {"random": 0.1, "borderline": 0.9 * 0.25}),  # at the threshold an image is accepted
        (0.5, 0.2000001, {"random": 0.1}),
    ],
)
def test_each_kind_is_kept_at_its_share(ood_score, p_value, shares):
    """Of the rejected, of all accepted, and of the accepted up to 2 alpha: within 5 sigma of 20000 draws."""
    selection = Selection(SHARES, random.Random(0).random)
    found = Counter(selection.reason(score(ood_score, p_value), 1.0, POINT.alpha) for _ in range(20_000))
    assert {reason for reason in found if reason} == set(shares)
    for reason, share in shares.items():
        assert found[reason] / 20_000 == pytest.approx(share, abs=5 * (share * (1 - share) / 20_000) ** 0.5)


@pytest.mark.parametrize("kind", SHARES)
def test_a_share_of_nothing_and_of_everything_are_exact(kind):
    """0 keeps none even for the smallest number drawn, 1 keeps all even for the largest."""
    ood_score = 1.5 if kind == "reject" else 0.9
    for drawn in (0.0, 1 - 2**-53):
        nothing, everything = dict.fromkeys(SHARES, 0.0), dict.fromkeys(SHARES, 0.0) | {kind: 1.0}
        assert Selection(nothing, lambda drawn=drawn: drawn).reason(score(ood_score, 0.2), 1.0, POINT.alpha) is None
        assert Selection(everything, lambda drawn=drawn: drawn).reason(score(ood_score, 0.2), 1.0, POINT.alpha) == kind


@given(st.floats(0.5, 6000), st.lists(st.floats(0, 100), max_size=200))
def test_a_bucket_never_gives_more_than_its_rate(per_minute: float, pauses: list[float]):
    """Within any stretch of time: what ten seconds bring, or one, and the rate of that time."""
    now, given_at = 0.0, []
    bucket = TokenBucket(per_minute, lambda: now)
    for pause in pauses:
        now += pause
        given_at += [now] * sum(bucket.take() for _ in range(20))
    burst = max(per_minute / 6, 1)
    for first, begin in enumerate(given_at):
        for last in range(first, len(given_at), 7):
            taken = last - first + 1
            assert taken <= burst + per_minute / 60 * (given_at[last] - begin) + 1e-6


def test_a_bucket_gives_its_rate_in_the_long_run():
    """Asked all the time, 60 a minute are 60 a minute."""
    now = 0.0
    bucket = TokenBucket(60, lambda: now)
    given_in_all = 0
    for _ in range(36_000):
        now += 0.1
        given_in_all += bucket.take()
    assert given_in_all == pytest.approx(3600 + 10, abs=1)


def test_a_backlog_is_bounded_by_its_bytes_until_they_are_released():
    """Taken out is not yet gone: the bytes are held until the image is written."""
    images = [candidate(seed) for seed in range(4)]
    size = max(len(each.data) for each in images) + OVERHEAD_BYTES
    backlog = Backlog(2 * size)
    assert [backlog.put(each) for each in images] == [True, True, False, False]
    taken = backlog.take()
    assert taken is images[0]
    assert not backlog.put(images[2])
    backlog.release(taken)
    assert backlog.put(images[2])


def test_a_closed_backlog_gives_what_it_has_and_then_ends():
    """Nothing is taken in any more; what waits can still be written, or thrown away."""
    images = [candidate(seed) for seed in range(3)]
    backlog = Backlog(2**20)
    assert all(backlog.put(each) for each in images)
    backlog.close()
    assert not backlog.put(candidate(3))
    assert backlog.take() is images[0]
    assert backlog.clear() == 2
    assert backlog.take() is None
